"use strict";
// One scan and its masks at a time: from `N/scene.json`, `N/scan.nii`, `N/0.nii`, ..., or out of the page itself, which
// then holds `{scene, files}` of every case. Nothing else is asked for.
const by = (id) => document.getElementById(id);
const inlined = by("volumes") && JSON.parse(by("volumes").textContent);
const sceneOf = async (which) => (inlined ? inlined[which].scene : (await fetch(`${which}/scene.json`)).json());

function volume(which, part, more) {
  if (!inlined) return { url: `${which}/${part}.nii`, name: `${part}.nii`, ...more };
  return { url: `data:application/gzip;base64,${inlined[which].files[part]}`, name: `${part}.nii.gz`, ...more };
}

const nv = new niivue.Niivue({
  backColor: [0, 0, 0, 1],
  crosshairColor: [1, 1, 1, 0.5],
  fontColor: [1, 1, 1, 1],
  showAllOrientationMarkers: true,
  crosshairWidth: 0.3,
  crosshairWidthUnit: "percent",
  isRadiologicalConvention: true,
  sagittalNoseLeft: true,
  isOrientCube: true,
  show3Dcrosshair: true,
  dragAndDropEnabled: false,
  loadingText: "",
  multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS,
});
const cases = by("case")?.options.length ?? 1;
let number = 0;
let scene = null;
let initial = [0, 1];
let masks = [];

function rgb(colour) {
  return [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
}

function paint(k) {
  const labels = scene.layers[k].labels;
  const shown = labels.map((_, j) => by(`label-${k}-${j}`).checked);
  const colours = labels.map((label) => rgb(label.colour));
  nv.volumes[k + 1].setColormapLabel({
    I: [0, ...labels.map((_, j) => j + 1)],
    R: [0, ...colours.map((c) => c[0])],
    G: [0, ...colours.map((c) => c[1])],
    B: [0, ...colours.map((c) => c[2])],
    A: [0, ...shown.map((is) => (is ? 255 : 0))],
    labels: ["", ...labels.map((label) => label.name)],
  });
  nv.updateGLVolume();
}

function element(tag, values, ...children) {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
}

function describeLayer(layer, k) {
  const slider = element("input", { type: "range", min: 0, max: 1, step: 0.05, value: 1, id: `opacity-${k}` });
  slider.addEventListener("input", () => nv.setOpacity(k + 1, Number(slider.value)));
  const items = layer.labels.map((label, j) => {
    const box = element("input", { type: "checkbox", checked: true, id: `label-${k}-${j}` });
    box.addEventListener("change", () => paint(k));
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = label.colour;
    const name = label.name === String(label.id) ? `label ${label.id}` : `${label.name} (${label.id})`;
    return element("li", {}, element("label", {}, box, " ", swatch, ` ${name}`));
  });
  if (!items.length) items.push(element("li", {}, "nothing is labelled"));
  return element(
    "div",
    { className: "layer" },
    element("h2", {}, layer.name),
    element("label", { htmlFor: slider.id }, "opacity"),
    slider,
    element("ul", {}, ...items),
  );
}

function goTo(mm) {
  nv.scene.crosshairPos = nv.mm2frac(mm);
  nv.createOnLocationChange();
  nv.drawScene();
}

// Of a mask (x fastest) only voxels beside another label stay; what lies outside counts as the same.
function edges(filled, [nx, ny, nz]) {
  const outline = new filled.constructor(filled.length);
  const steps = [[1, nx], [nx, ny], [nx * ny, nz]];
  for (let i = 0; i < filled.length; i++) {
    const label = filled[i];
    if (!label) continue;
    for (const [step, count] of steps) {
      const at = Math.floor(i / step) % count;
      if ((at > 0 && filled[i - step] !== label) || (at < count - 1 && filled[i + step] !== label)) {
        outline[i] = label;
        break;
      }
    }
  }
  return outline;
}

function drawMasks() {
  nv.volumes.slice(1).forEach((volume, k) => {
    masks[k] ??= { filled: volume.img, outline: null };
    if (by("outline").checked) masks[k].outline ??= edges(masks[k].filled, volume.hdr.dims.slice(1, 4));
    volume.img = by("outline").checked ? masks[k].outline : masks[k].filled;
  });
  nv.updateGLVolume();
}

function setWindow(low, high) {
  [nv.volumes[0].cal_min, nv.volumes[0].cal_max] = [low, high];
  nv.updateGLVolume();
}

async function show(which) {
  number = which;
  document.body.dataset.ready = "";
  by("problem").hidden = true;
  by("message").textContent = "reading";
  if (by("case")) by("case").value = String(which);
  const found = await sceneOf(which);
  if (number !== which) return;
  if (typeof found.error === "string") {
    by("message").textContent = "";
    by("problem").textContent = found.error;
    by("problem").hidden = false;
    return;
  }
  scene = found;
  by("name").textContent = scene.name;
  if (!inlined) document.title = `${scene.name}: vpt view`;
  const layers = scene.layers.map((_, k) => volume(which, k, { opacity: 1 }));
  await nv.loadVolumes([volume(which, "scan", { colormap: "gray" }), ...layers]);
  if (number !== which) return;
  by("layers").replaceChildren(...scene.layers.map(describeLayer));
  scene.layers.forEach((_, k) => paint(k));
  by("outlined").hidden = !scene.layers.length;
  masks = [];
  drawMasks();
  initial = [nv.volumes[0].cal_min, nv.volumes[0].cal_max];
  [by("low").value, by("high").value] = initial.map((value) => Number(value.toPrecision(5)));
  by("error").hidden = !scene.error;
  if (scene.error) by("error").textContent = `Go to the largest difference (${scene.error.words})`;
  by("notes").replaceChildren(...scene.notes.map((note) => element("li", {}, note)));
  by("message").textContent = cases > 1 ? `case ${which + 1} of ${cases}` : "";
  nv.opts.isOrientationTextVisible = scene.unit === "mm";
  for (const each of document.querySelectorAll('input[name="plane"]')) each.disabled = scene.flat;
  if (scene.flat) document.querySelector('input[name="plane"][value="0"]').checked = true;
  setPlane();
  if (scene.error) goTo(scene.error.mm);
  document.body.dataset.ready = "yes";
}

function setPlane() {
  nv.setSliceType(Number(document.querySelector('input[name="plane"]:checked').value));
}

function step(by_) {
  if (cases > 1) show((number + by_ + cases) % cases);
}

nv.onLocationChange = (at) => {
  const values = at.values.map((each, k) => {
    if (!k) return `value ${Number(each.value.toPrecision(5))}`;
    const label = scene?.layers[k - 1]?.labels[Math.round(each.value) - 1];
    return label ? label.name : "";
  });
  by("place").textContent = [`${[...at.mm].slice(0, 3).map((each) => each.toFixed(1)).join(", ")} ${scene?.unit ?? "mm"}`, ...values]
    .filter(Boolean)
    .join("; ");
};
by("previous")?.addEventListener("click", () => step(-1));
by("next")?.addEventListener("click", () => step(1));
by("case")?.addEventListener("change", () => show(Number(by("case").value)));
by("error").addEventListener("click", () => goTo(scene.error.mm));
by("outline").addEventListener("change", drawMasks);
by("reset").addEventListener("click", () => {
  [by("low").value, by("high").value] = initial.map((value) => Number(value.toPrecision(5)));
  setWindow(...initial);
});
for (const id of ["low", "high"]) {
  by(id).addEventListener("change", () => setWindow(Number(by("low").value), Number(by("high").value)));
}
document.querySelectorAll('input[name="plane"]').forEach((each) => each.addEventListener("change", setPlane));
document.addEventListener("keydown", (event) => {
  if (!event.target.closest(".viewer") || event.target.matches("input[type=number], select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "n") step(1);
  if (event.key === "p") step(-1);
  if (event.key === "e" && scene?.error) goTo(scene.error.mm);
});
nv.attachToCanvas(by("canvas")).then(() => show(0)).catch((error) => {
  by("problem").textContent = `The viewer cannot start: ${error.message ?? error}. It needs WebGL 2.`;
  by("problem").hidden = false;
});
