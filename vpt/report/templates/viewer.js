"use strict";
// The library is packed in the page and made a script when somebody wants to look.
document.getElementById("open-viewer").addEventListener("click", async (event) => {
  const run = (text) => document.body.append(Object.assign(document.createElement("script"), { textContent: text }));
  event.target.disabled = true;
  try {
    const packed = Uint8Array.from(atob(document.getElementById("niivue").textContent.trim()), (c) => c.charCodeAt(0));
    const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    run(await new Response(unpacked).text());
    document.querySelector("#viewer .screen").hidden = false;
    run(document.getElementById("viewer-code").textContent);
    event.target.parentElement.hidden = true;
    document.getElementById("canvas").focus();
  } catch (error) {
    document.getElementById("viewer-problem").textContent = `The viewer cannot start: ${error.message ?? error}.`;
  }
});
