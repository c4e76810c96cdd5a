"""Class folders, a CSV and an .npz are data sets for classification; what is wrong is named with its line."""

from __future__ import annotations

import csv
import io
import json
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Image
from PIL import Image

from vpt.data.labelled import LabelledSet
from vpt.data.layouts import is_labelled, read_dataset, read_labelled, survey_labelled
from vpt.errors import VptError
from vpt.readers import SUPPORTED, reader_of


def picture(path: Path, mode: str = "L", value: int = 80) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (6, 5), value).convert(mode).save(path)
    return path


def folders(root: Path, **classes: int) -> Path:
    for name, count in classes.items():
        for number in range(count):
            picture(root / name / f"image_{number:04d}.png", value=10 * number)
    return root


def table(root: Path, text: str, images: str = "a b c d", name: str = "labels.csv") -> Path:
    for each in images.split():
        picture(root / f"{each}.png")
    (root / name).write_text(text, encoding="utf-8")
    return root


def targets(found: LabelledSet) -> dict[str, tuple[str, ...]]:
    return {each.name: tuple(found.classes[place] for place in each.target) for each in found.cases}


def problems(root: Path, **wishes) -> list[str]:
    return [str(problem).replace(f"{root}/", "") for problem in survey_labelled(root, **wishes)[1]]


# --- class folders ----------------------------------------------------------------------------------------------------


def test_the_first_folder_is_the_class(tmp_path):
    root = folders(tmp_path / "zoo", cat=3, ant=2)
    picture(root / "cat/young/k1.jpg")
    picture(root / ".cache/x.png")
    picture(root / "cat/.thumb.png")
    (root / "cat/.hidden").mkdir()
    picture(root / "cat/.hidden/x.png")
    picture(root / "overview.png")
    (root / "notes").mkdir()
    for note in ("README.md", "cat/README.md", "notes/why.txt"):
        (root / note).write_text("about")
    found = read_labelled(root)
    assert (found.name, found.kind, found.channels) == ("zoo", "images", ("grey",))
    assert (found.classes, found.labels, found.target) == (("ant", "cat"), {0: "ant", 1: "cat"}, "classes")
    assert [each.name for each in found.cases] == [
        *("ant/image_0000", "ant/image_0001"),
        *("cat/image_0000", "cat/image_0001", "cat/image_0002", "cat/young/k1"),
    ]
    assert [each.target for each in found.cases] == [(0,), (0,), (1,), (1,), (1,), (1,)]
    assert found.case("cat/young/k1").images == (root / "cat/young/k1.jpg",)
    assert found.sides == {}
    with pytest.raises(VptError, match=r"no case is called 'cat/image_0009'; did you mean cat/image_000"):
        found.case("cat/image_0009")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_images_and_classes_whose_names_are_not_utf_8_are_told(tmp_path):
    root = folders(tmp_path / "zoo", cat=3, ant=2)
    picture(root / "cat/\udcff.png")
    picture(root / "\udcfe/x.png")
    said = problems(root)
    assert [text.rpartition("zoo/")[2] for text in said] == [
        "cat/\\xff.png: its name is not UTF-8; rename it",
        "\\xfe/x.png: its name is not UTF-8; rename it",
    ]


def test_every_image_is_its_own_patient_unless_its_name_is_that_of_a_slice(tmp_path):
    root = folders(tmp_path, cat=2, dog=1)
    for name in ("cat/p7_slice_01", "cat/p7_slice_02", "dog/p7_slice_03", "dog/scan_01", "dog/x/p8_s1"):
        picture(root / f"{name}.png")
    found = read_labelled(root)
    assert found.patient("cat/image_0000") == "cat/image_0000"
    assert {found.patient(f"{name}") for name in ("cat/p7_slice_01", "cat/p7_slice_02", "dog/p7_slice_03")} == {"p7"}
    assert found.patient("dog/scan_01") == "dog/scan_01"
    assert found.patient("dog/x/p8_s1") == "x/p8"
    (root / "dataset.json").write_text(
        json.dumps({"name": "Pets", "patients": {"cat/image_0000.png": "Tom", "dog/p7_slice_03": "Rex"}})
    )
    found = read_labelled(root)
    assert (found.name, found.patient("cat/image_0000"), found.patient("dog/p7_slice_03")) == ("Pets", "Tom", "Rex")


def test_folders_of_sides_hold_the_classes(tmp_path):
    for side, count in {"Training": 3, "valid": 1, "test": 2}.items():
        folders(tmp_path / side, cat=count, dog=count)
    found = read_labelled(tmp_path)
    assert found.classes == ("cat", "dog")
    assert found.sides["Training/cat/image_0002"] == "train"
    assert sorted(found.sides.values()) == ["test"] * 4 + ["train"] * 6 + ["val"] * 2
    picture(tmp_path / "Training/cat/p1_s1.png")
    picture(tmp_path / "test/dog/p1_s2.png")
    assert problems(tmp_path) == []  # by their names one patient's: a guess, which refuses nothing
    (tmp_path / "dataset.json").write_text(
        json.dumps({"patients": {"Training/cat/p1_s1": "p1", "test/dog/p1_s2": "p1"}})
    )
    assert problems(tmp_path) == [
        "test/dog/p1_s2.png: patient p1 is in test here and in train (Training/cat/p1_s1.png); "
        "keep a patient on one side"
    ]
    assert read_labelled(folders(tmp_path / "b", train=2, car=1)).classes == ("car", "train")


def test_volumes_in_class_folders(tmp_path, save):
    for name in ("ill/a", "ill/b", "well/c"):
        save(tmp_path / f"{name}.nii.gz", np.zeros((3, 4, 5), np.uint8))
    found = read_labelled(tmp_path)
    assert (found.kind, found.channels, [each.name for each in found.cases]) == (
        "volumes",
        ("image",),
        ["ill/a", "ill/b", "well/c"],
    )
    assert reader_of(found.cases[0].images[0]).voxels(1).shape == (1, 3, 4, 5)
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "T1", "1": "T2"}}))
    assert read_labelled(tmp_path).channels == ("T1", "T2")
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": {str(k): "T" for k in range(17)}}))
    with pytest.raises(VptError, match=r"17 channels \(T, T, .*\), a model takes 16 at most"):
        read_labelled(tmp_path)
    (tmp_path / "dataset.json").unlink()
    picture(tmp_path / "well/d.png")
    assert problems(tmp_path)[0] == "ill/a.nii.gz: a volume among images; keep one kind, take the others out"


def test_what_is_wrong_with_class_folders(tmp_path):
    root = folders(tmp_path / "zoo", cat=2, dog=1)
    picture(root / "cat/image_0001.jpg")
    assert problems(root, classes=["dgo", "cat"]) == [
        "cat/image_0001.png: the second image called cat/image_0001; keep one of the two or rename it",
        "dog/image_0000.png: 'dog' is not in `classes` (dgo, cat); did you mean dgo?",
    ]
    with pytest.raises(VptError, match=r"1 more of this kind; `vpt check .*zoo` lists them all"):
        read_labelled(root, classes=["dgo", "cat"])
    for path, sentence in [
        (folders(tmp_path / "one", cat=2), "neither labels.csv nor two folders of images; supported are class folders"),
        (folders(tmp_path / "seg", images=2, masks=2), "neither labels.csv nor two folders of images"),
        (folders(tmp_path / "sides", train=2, test=2), "neither labels.csv nor two folders of images"),
        (tmp_path / "gone", "no such file or folder; supported are class folders"),
        (picture(tmp_path / "x.png"), "no data set for classification; supported are"),
    ]:
        with pytest.raises(VptError, match=sentence) as caught:
            read_labelled(path)
        assert str(caught.value).startswith(f"{path}: ")
    (root / "dataset.json").write_text("[]")
    with pytest.raises(VptError, match=r"dataset\.json: a list at the top, expected an object"):
        read_labelled(root)


# --- classes and targets ----------------------------------------------------------------------------------------------


def test_classes_fix_the_order_and_numbers_have_their_own(tmp_path):
    root = folders(tmp_path, **{"10": 1, "9": 1, "-1.5": 1})
    assert read_labelled(root).classes == read_labelled(root, "grades").classes == ("-1.5", "9", "10")
    found = read_labelled(root, "grades", ["10", "9", "x", "-1.5"])
    assert (found.classes, found.target, found.case("10/image_0000").target) == (
        ("10", "9", "x", "-1.5"),
        "grades",
        (0,),
    )
    assert read_labelled(root, "labels").target == "labels"


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        (
            {"target": "grades"},
            "the grades mild, none are no numbers; give their order, the lowest first, as `classes`",
        ),
        ({"target": "grade"}, "target 'grade', expected classes or labels or grades; did you mean grades"),
        ({"classes": ["mild"]}, r"classes: 1 named \(mild\), expected at least 2"),
        ({"classes": ["mild", "none", "mild"]}, "classes: 'mild' is named twice"),
        ({"classes": ["mild", "nine"]}, r"'none' is not in `classes` \(mild, nine\); did you mean nine\?"),
    ],
)
def test_wishes_that_do_not_fit_are_told(tmp_path, wishes, sentence):
    with pytest.raises(VptError, match=sentence):
        read_labelled(folders(tmp_path, none=1, mild=1), **wishes)


def test_is_labelled_leaves_segmentation_alone(tmp_path, make_images, make_dataset):
    assert is_labelled(folders(tmp_path / "zoo", cat=1, dog=1))
    assert is_labelled(table(tmp_path / "csv", "path,label\na.png,x\n"))
    assert is_labelled(tmp_path / "csv/labels.csv")
    assert is_labelled(tmp_path / "x.NPZ")
    (tmp_path / "zoo/dataset.json").write_text('{"name": "Zoo"}')
    assert is_labelled(tmp_path / "zoo")
    for content in ('{"labels": {"background": 0, "x": 1}}', "{", "[]"):
        (tmp_path / "zoo/dataset.json").write_text(content)
        assert not is_labelled(tmp_path / "zoo")
    root = make_images(name="seg")
    assert not is_labelled(root)
    (root / "labels.csv").write_text("file,class\ncase_00.png,x\ncase_01.png,y\n")
    assert not is_labelled(root)
    assert targets(read_labelled(root)) == {"case_00": ("x",), "case_01": ("y",)}
    dataset = make_dataset()
    assert not is_labelled(dataset)
    (dataset / "dataset.json").unlink()
    assert not any(map(is_labelled, (dataset, tmp_path / "gone", picture(tmp_path / "x.png"), root / "images")))


# --- CSV --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "path,label,split,patient\na.png,x,train,1\nb.png,y,Validation,2\nimages/c.png,x,TEST,3\n",
        "\ufeffFile;Class;Split;Group\n./a.png;x;training;1\n\n b.png ; y ;val;2\nimages\\c.png;x;testing;3\n;;;\n",
        'filename\tage\tDIAGNOSIS\tsplit\tsubject\n"a.png"\t3\tx\ttrain\t1\nb.png\t4\ty\tvalid\t2\nimages/c.png\t9\tx\ttest\t3',
        "patient,image,split,label\r\n1,a.png,train,x\r\n2,b.png,val,y\r\n3,images/c.png,test,x\r\n",
    ],
)
def test_ways_to_write_the_same_csv(tmp_path, text):
    found = read_labelled(table(tmp_path, text, "a b images/c"))
    assert targets(found) == {"a": ("x",), "b": ("y",), "images/c": ("x",)}
    assert found.sides == {"a": "train", "b": "val", "images/c": "test"}
    assert found.patients == {"a": "1", "b": "2", "images/c": "3"}
    assert (found.root, found.source) == (tmp_path, tmp_path / "labels.csv")


def test_images_are_beside_the_csv_or_in_images_or_anywhere(tmp_path):
    far = picture(tmp_path / "far/f.png")
    text = f"path,label\nb.png,x\n{far},y\n../far2/g.png,y\n{tmp_path / 'set/d.png'},x\n"
    picture(tmp_path / "far2/g.png")
    root = table(tmp_path / "set", text, "images/b d", name="mine.csv")
    found = read_labelled(root / "mine.csv")
    assert found.name == "mine"
    assert [each.name for each in found.cases] == sorted(["b", "d", "far2/g", str(far.with_suffix("")).lstrip("/")])
    assert found.case("b").images == (root / "images/b.png",)


def test_several_labels_are_seen_or_asked_for(tmp_path):
    root = table(tmp_path, "path,label\na.png, x | y\nb.png,\nc.png,z|z\nd.png,y|\n")
    found = read_labelled(root)
    assert (found.target, found.classes) == ("labels", ("x", "y", "z"))
    assert [each.target for each in found.cases] == [(0, 1), (), (2,), (1,)]
    assert problems(root, target="classes") == [
        "labels.csv: line 2: 2 labels (x, y), expected one; set the target to labels for several",
        "labels.csv: line 3: no label; name the image's class, or set the target to labels if there can be none",
    ]
    table(tmp_path, "path,label\na.png,x\nb.png,\nc.png,y\n")
    assert problems(root)[0].startswith("labels.csv: line 3: no label; name the image's class")
    assert read_labelled(root, "labels").case("b").target == ()


def test_every_wrong_line_is_told_with_its_number(tmp_path):
    (tmp_path / "labels.csv").parent.mkdir(exist_ok=True)
    (tmp_path / "e.txt").touch()
    text = (
        "path,label,split,patient\n"
        "a.png,x,train,p1\n"
        "./a.png,x,train,p1\n"
        '"no\nthing.png",x,train,p2\n'
        "b.png,y,trian,p3\n"
        "c.png,y,val,p1\n"
        "d.png,y,val,p4,5\n"
        "e.txt,y,val,p5\n"
        ",y,val,p6\n"
        "d.jpg,zz\n"
        f"{'n' * 300}.png,y\n"
    )
    picture(tmp_path / "d.jpg")
    root = table(tmp_path, text)
    found = [problem.replace("\n", " ").replace("n" * 300, "n") for problem in problems(root, classes=["x", "y", "z"])]
    assert found == [
        "labels.csv: line 3: ./a.png is already on line 2; keep one of the two",
        "labels.csv: line 4: no such file: no thing.png, nor images/no thing.png; add it, or remove the line",
        "labels.csv: line 6: split 'trian', expected train, val or test; did you mean train or training?",
        "labels.csv: line 8: 5 cells, but the header has 4; quote what holds the separator",
        f"labels.csv: line 9: e.txt: not a supported ending; {SUPPORTED}",
        "labels.csv: line 10: no path; name the image, or remove the line",
        "labels.csv: line 12: no such file: n.png, nor images/n.png; add it, or remove the line",
        "labels.csv: line 11: 'zz' is not in `classes` (x, y, z); did you mean z?",
        "labels.csv: line 7: patient p1 is in val here and in train (line 2); keep a patient on one side",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "an empty file, expected a header with `path` and `label`"),
        ("path,label\n", "no image in it"),
        (
            "path,labels\na.png,x\n",
            r"no column for the label among path, labels; expected one called label \(or class,",
        ),
        ("name;label\na.png;x\n", r"no column for the path among name, label; expected one called path \(or file,"),
        ("image_id,ImageID,label\na.png,a.png,x\n", "2 columns are called 'image_id' and 'imageid'; keep one"),
        ("path,label,Label\na.png,x,y\n", "2 columns are called 'label'; keep one, or rename the others"),
        ('path,label\na.png,x\n"b.png,y\nc.png,x\n', "line 3: no valid CSV .*; is a quotation mark missing there"),
        ("path,label\na.png,x\nb.png,x\n", r"one class \(x\), expected at least 2; add images of another"),
        ("path,label\ngone.png,x\n", "line 2: no such file: gone.png"),
    ],
)
def test_a_csv_that_cannot_be_used_is_told(tmp_path, text, sentence):
    with pytest.raises(VptError, match=sentence):
        read_labelled(table(tmp_path, text))


def test_a_csv_in_another_encoding_is_told(tmp_path):
    table(tmp_path, "")
    (tmp_path / "labels.csv").write_bytes("path,label\na.png,Übel\n".encode("latin-1"))
    with pytest.raises(VptError, match=r"labels\.csv: no UTF-8 text .*; save it as CSV in UTF-8"):
        read_labelled(tmp_path)


WORD = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\|\0.\x85\x1c\x1d\x1e\x1f", exclude_categories=("C", "Z"))
    | st.sampled_from(" ,;\"\t'"),
    min_size=1,
    max_size=8,
)


def composed(name: str) -> str:
    """As a case is called: umlauts are one character."""
    return unicodedata.normalize("NFC", name)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(WORD.map(str.strip).filter(bool), WORD.map(str.strip).filter(bool), min_size=2, max_size=6).filter(
        lambda named: len({*map(composed, named)}) == len(named)
    ),
    st.sampled_from(",;\t"),
    st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
    st.sampled_from(("\n", "\r\n")),
    st.booleans(),
)
def test_what_a_csv_writer_writes_is_read(tmp_path_factory, named, separator, quoting, newline, bom):
    root = tmp_path_factory.mktemp("csv")
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=newline)
    writer.writerows(
        [("path", "note", "label"), *((f"{name}.png", "1,2;3\t4", label) for name, label in named.items())]
    )
    for name in named:
        picture(root / f"{name}.png")
    (root / "labels.csv").write_bytes(text.getvalue().encode("utf-8-sig" if bom else "utf-8"))
    found, wrong = survey_labelled(root)
    assert targets(found) == {composed(name): (label,) for name, label in named.items()}
    assert [str(each) for each in wrong if "one class" not in str(each)] == []


# --- MedMNIST ---------------------------------------------------------------------------------------------------------


def arrays(shape=(8, 8), columns: int = 1, counts=(4, 2, 3), high: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {}
    for side, count in zip(("train", "val", "test"), counts, strict=True):
        made[f"{side}_images"] = rng.integers(0, 256, (count, *shape), np.uint8)
        made[f"{side}_labels"] = rng.integers(0, high, (count, columns)).astype(np.uint8)
    made["train_labels"][0] = high - 1
    return made


def npz(root: Path, **content) -> Path:
    np.savez(root / "mnist.npz", **content)
    return root / "mnist.npz"


@pytest.mark.parametrize(
    ("shape", "kind", "channels", "loaded"),
    [
        ((8, 7), "images", ("grey",), (1, 7, 8, 1)),
        ((8, 7, 3), "images", ("red", "green", "blue"), (3, 7, 8, 1)),
        ((5, 8, 7), "volumes", ("image",), (1, 7, 8, 5)),
    ],
)
def test_an_npz_stays_in_memory(tmp_path, shape, kind, channels, loaded):
    made = arrays(shape)
    found = read_labelled(npz(tmp_path, **made))
    assert (found.name, found.kind, found.channels, found.target) == ("mnist", kind, channels, "classes")
    assert found.classes == ("class 0", "class 1")
    assert len(found.cases) == 9
    assert found.case("val_00001").target == (int(made["val_labels"][1, 0]),)
    assert (found.sides["train_00000"], found.sides["test_00002"]) == ("train", "test")
    assert len({found.patient(each.name) for each in found.cases}) == 9
    image = reader_of(found.case("train_00002").images[0]).voxels(len(channels))
    assert image.shape == loaded
    pixels = made["train_images"][2]
    assert np.array_equal(image.values()[0].squeeze().T, pixels[..., 0] if channels[0] == "red" else pixels)
    assert isinstance(found.cases[0].images[0], Nifti1Image if kind == "volumes" else np.ndarray)


def test_an_npz_of_several_labels_and_of_grades(tmp_path):
    made = arrays(columns=3)
    path = npz(tmp_path, **made)
    found = read_labelled(path, classes=["a", "b", "c"])
    assert (found.target, found.classes) == ("labels", ("a", "b", "c"))
    assert [each.target for each in found.cases if each.name.startswith("val")] == [
        tuple(np.flatnonzero(row)) for row in made["val_labels"]
    ]
    with pytest.raises(VptError, match="several labels an image, but the target is grades; set it to labels"):
        read_labelled(path, "grades")
    found = read_labelled(npz(tmp_path, **arrays(high=5)), "grades")
    assert (found.target, found.classes[-1]) == ("grades", "class 4")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"train_images": np.zeros((4, 8), np.uint8)}, r"train_images has the shape \(4, 8\), expected \(N, H, W\)"),
        ({"val_images": np.zeros((2, 8, 8), float)}, "val_images is float64, expected uint8"),
        ({"val_images": np.zeros((2, 9, 9), np.uint8)}, r"different shapes \(train \(8, 8\), val \(9, 9\), test"),
        ({"test_labels": np.zeros((2, 1), int)}, r"test_labels has the shape \(2, 1\), expected \(3, 1\)"),
        ({"test_labels": np.zeros((3, 1), float)}, "test_labels is float64, expected whole numbers"),
        ({"test_labels": np.array([[0], [1], [-1]])}, "test_labels holds -1, expected classes from 0 on"),
        ({"test_labels": np.array([[0, 2]] * 3)}, "test_labels holds 2, expected 0 and 1"),
        ({"test_labels": np.array([[0, 1]] * 3)}, "one column on one side and several on another"),
        ({"test_labels": np.array([["a"]] * 3, object)}, "of type object, expected plain numbers"),
        ({"val_labels": None}, "holds test_images, .*, expected .*_images and"),
        ({"train_images": None}, "expected .*_images and"),
    ],
)
def test_odd_arrays_are_told(tmp_path, change, sentence):
    content = {name: array for name, array in (arrays() | change).items() if array is not None}
    with pytest.raises(VptError, match=sentence) as caught:
        read_labelled(npz(tmp_path, **content))
    assert str(caught.value).startswith(f"{tmp_path / 'mnist.npz'}: ")


def test_a_damaged_npz_is_told(tmp_path):
    path = npz(tmp_path, **arrays())
    whole = path.read_bytes()
    for content in (b"", b"PK\3\4 not so", whole[: len(whole) // 2], whole[:300] + b"\1\2\3" + whole[303:]):
        path.write_bytes(content)
        with pytest.raises(VptError, match=r"mnist\.npz: (an empty file|truncated, damaged or no \.npz)"):
            read_labelled(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(VptError, match=r"damaged or no \.npz"):
        read_labelled(path)
    path = npz(tmp_path, **arrays(high=3))
    with pytest.raises(VptError, match="labels of 3 classes, but `classes` has 2 names; give 3"):
        read_labelled(path, classes=["a", "b"])


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_whatever_the_mode_an_image_is_grey_or_colour(tmp_path):
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    grey = Image.fromarray(rng.integers(0, 256, (5, 6), np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    saved = {
        "grey": grey,
        "rgb_grey": grey.convert("RGB"),
        "deep": Image.fromarray(rng.integers(0, 2**16, (5, 6), np.uint16)),
        "alpha": grey.convert("LA"),
        "rgb": colour,
        "rgba": colour.convert("RGBA"),
        "palette": colour.quantize(16),
    }
    for name, image in saved.items():
        (tmp_path / "one").mkdir(exist_ok=True)
        image.save(tmp_path / f"one/{name}.png")
    (tmp_path / "two").mkdir()
    colour.convert("CMYK").save(tmp_path / "two/cmyk.jpg")
    grey.save(tmp_path / "two/turned.jpg", exif=turned)
    found = read_labelled(tmp_path)
    assert found.channels == ("red", "green", "blue")
    shapes = {each.name: tuple(reader_of(each.images[0]).voxels(3).shape) for each in found.cases}
    assert shapes == {each.name: (3, 6, 5, 1) for each in found.cases} | {"two/turned": (3, 5, 6, 1)}
    assert reader_of(tmp_path / "one/deep.png").voxels(3).values().max() > 255
    for name in ("one/rgb_grey.png", "one/rgb.png", "one/rgba.png", "one/palette.png", "two/cmyk.jpg"):
        (tmp_path / name).unlink()
    assert read_labelled(tmp_path).channels == ("grey",)


def test_one_colour_image_among_many_grey_ones_is_enough(tmp_path):
    root = folders(tmp_path, cat=150, dog=150)
    for path in root.glob("*/*.png"):
        Image.new("L", (4, 4), 9).save(path)
    assert read_labelled(root).channels == ("grey",)
    last = sorted(root.glob("dog/*.png"))[-2]
    Image.new("RGB", (4, 4), (200, 0, 0)).save(last)
    found = read_labelled(root)
    assert found.channels == ("red", "green", "blue")
    assert reader_of(found.case(f"dog/{last.stem}").images[0]).voxels(len(found.channels)).shape == (3, 4, 4, 1)


# --- real data --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "classes", "count", "channels"),
    [
        ("caltech101_vtab", 100, 1989, 3),
        ("cifar10_1k", 10, 2000, 3),
        ("cxr_pneumonia", 3, 1326, 1),
        ("brain_tumor_mri4", 4, 1280, 3),
        ("busi", 3, 762, 1),
    ],
)
def test_real_sets(data_root, name, classes, count, channels):
    found = read_labelled(data_root / name)
    assert (len(found.classes), len(found.cases), len(found.channels)) == (classes, count, channels)
    assert is_labelled(data_root / name) == (name != "busi")
    patients = {found.patient(each.name) for each in found.cases}
    assert len(patients) == (len(set(found.patients.values())) if name == "busi" else count)


# --- lists of challenges ----------------------------------------------------------------------------------------------


def test_names_without_an_ending_are_found_in_folders_below(tmp_path):
    """As APTOS and HAM10000 come: their own columns, images in folders of any name."""
    for place in ("part_1/ISIC_01", "part_1/ISIC_02", "part_2/ISIC_03", "part_2/deep/ISIC_04"):
        picture(tmp_path / f"{place}.jpg")
    lines = "lesion_id,image_id,dx,sex\nL1,ISIC_01,nv,f\nL1,ISIC_02,nv,f\nL2,ISIC_03.jpg,mel,m\nL3,ISIC_04,mel,m\n"
    (tmp_path / "metadata.csv").write_text(lines)
    found = read_labelled(tmp_path / "metadata.csv")
    assert targets(found) == {"ISIC_01": ("nv",), "ISIC_02": ("nv",), "ISIC_03": ("mel",), "ISIC_04": ("mel",)}
    assert [found.patient(name) for name in sorted(targets(found))] == ["L1", "L1", "L2", "L3"]
    assert [case.images[0].parent.name for case in found.cases] == ["part_1", "part_1", "part_2", "deep"]
    assert set(found.columns) >= {"sex"}


@pytest.mark.parametrize(
    "header", ["ImageID,Class,PatientID", "Image Name,class,PATIENT-ID", "file-name,CLASS,Subject-ID"]
)
def test_columns_are_known_however_their_words_are_joined(header: str, tmp_path: Path) -> None:
    """As PadChest and MHIST write them."""
    found = read_labelled(table(tmp_path, f"{header}\na.png,x,p\nb.png,y,p\nc.png,x,q\n"))
    assert targets(found) == {"a": ("x",), "b": ("y",), "c": ("x",)}
    assert [found.patient(case.name) for case in found.cases] == ["p", "p", "q"]


def test_findings_of_one_image_may_be_several(tmp_path):
    for name in ("1_000.png", "2_000.png", "3_000.png"):
        picture(tmp_path / "images_001/images" / name)
    lines = "Image Index,Finding Labels,Patient ID\n1_000.png,Mass|Edema,1\n2_000.png,No Finding,2\n3_000.png,Mass,3\n"
    (tmp_path / "Data_Entry.csv").write_text(lines)
    found = read_labelled(tmp_path / "Data_Entry.csv")
    assert found.target == "labels"
    assert targets(found)["1_000"] == ("Edema", "Mass")
    assert found.patient("1_000") == "1"


def test_a_name_that_may_be_two_files_is_refused_and_a_path_is_not_looked_for_elsewhere(tmp_path):
    for place in ("a/x.png", "b/x.jpg", "a/y.png", "a/z.png"):
        picture(tmp_path / place)
    (tmp_path / "list.csv").write_text("image,label\nx,1\nc/y.png,0\ny.jpg,0\nz,1\ny,0\n")
    found, wrong = survey_labelled(tmp_path / "list.csv")
    assert [str(problem).partition("line ")[2] for problem in wrong] == [
        "2: x: may be a/x.png, b/x.jpg; give the path of the one that is meant",
        "3: no such file: c/y.png, nor images/c/y.png; add it, or remove the line",
        "4: no such file: y.jpg, nor images/y.jpg; add it, or remove the line",
    ]
    assert sorted(targets(found)) == ["y", "z"]


# --- what lies beside the data ----------------------------------------------------------------------------------------


def trained_in(folder: Path) -> Path:
    """What a training leaves: its description, and pictures."""
    for name in ("config.yaml", "plan.json", "splits.json"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    picture(folder / "previews/a.png")
    picture(folder / "validation/a.png")
    return folder


def test_the_run_of_a_training_is_no_data_set(tmp_path):
    run = trained_in(tmp_path / "run")
    for read in (read_labelled, read_dataset):
        with pytest.raises(VptError, match="run: the run of a training, expected a data set; give that"):
            read(run)


def test_runs_beside_classes_and_in_them_are_not_read(tmp_path):
    root = folders(tmp_path / "zoo", cat=3, ant=2)
    before = targets(read_labelled(root))
    trained_in(root / "run1")
    trained_in(root / "cat/run2")
    trained_in(root / "runs/run3")
    assert targets(read_labelled(root)) == before
    assert read_labelled(root).classes == ("ant", "cat")


def test_folders_of_cases_are_no_classes(tmp_path):
    """As PH2 lies: a folder per patient, with one for each kind of its files."""
    for name in ("IMD002", "IMD003"):
        picture(tmp_path / f"ph2/{name}/{name}_Dermoscopic_Image/{name}.bmp")
        picture(tmp_path / f"ph2/{name}/{name}_roi/{name}_R1_Label3.bmp")
    assert not is_labelled(tmp_path / "ph2")
    for name in ("benign", "malignant"):  # what else lies in classes
        for part in ("_1", "_2", "_left", "_right"):
            picture(tmp_path / f"mass/{name}/{name}{part}/a.png")
    assert is_labelled(tmp_path / "mass")


@pytest.mark.parametrize("column", ["Image Name", "ImageID", "img_id", "id", "file_path"])
def test_an_image_column_as_published_lists_call_it(tmp_path, column):
    for name in "abcd":
        picture(tmp_path / "train" / f"{name}.png")
    (tmp_path / "train.csv").write_text(f"{column},label\na,x\nb,y\nc,x\nd,y\n")

    assert [case.name for case in read_labelled(tmp_path / "train.csv").cases] == [*"abcd"]


def test_an_id_beside_a_path_is_no_image(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "list.csv").write_text("id,path,label\n1,a.png,x\n2,b.png,y\n")

    assert [case.name for case in read_labelled(tmp_path / "list.csv").cases] == ["a", "b"]


@pytest.mark.parametrize("column", ["image_id", "image", "ID"])
@pytest.mark.parametrize("file", ["filepath", "Image Path"])
def test_a_path_beside_an_id_of_the_image_is_read(tmp_path, column, file):
    for name in "ab":
        picture(tmp_path / f"input/{name}.png")
    (tmp_path / "list.csv").write_text(f"{column},{file},label\n1,input/a.png,x\n2,input/b.png,y\n")

    assert [case.name for case in read_labelled(tmp_path / "list.csv").cases] == ["input/a", "input/b"]


def test_a_number_that_a_file_is_called_by_is_no_image_beside_a_path_to_another(tmp_path):
    for name in "123":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "list.csv").write_text("image_id,filepath,label\n1,2.png,x\n2,3.png,y\n3,1.png,y\n")

    found = read_labelled(tmp_path / "list.csv")

    assert targets(found) == {"1": ("y",), "2": ("x",), "3": ("y",)}


def test_a_list_of_masks_that_is_called_otherwise_is_told_how_to_call_its_columns(tmp_path):
    (tmp_path / "list.csv").write_text("id,image_path,mask_path\n1,a.png,b.png\n")

    with pytest.raises(VptError, match=r"; to segment, call the columns image and mask$"):
        read_labelled(tmp_path / "list.csv")


def test_lists_of_sides_are_to_be_joined(tmp_path):
    for name in "abcd":
        picture(tmp_path / f"pictures/{name}.png")
    for side, names in (("train", "ab"), ("val", "c"), ("test", "d")):
        (tmp_path / f"{side}.csv").write_text("path,label\n" + "".join(f"{name}.png,{name}\n" for name in names))

    with pytest.raises(VptError, match=r"join the lists of its sides \(test.csv, train.csv, val.csv\) into one"):
        read_dataset(tmp_path)
    (tmp_path / "val.csv").unlink(), (tmp_path / "test.csv").unlink()
    with pytest.raises(VptError, match=r"give the list in the place of the folder \(.*train.csv\)"):
        read_dataset(tmp_path)


def test_an_id_is_not_read_in_the_place_of_paths_that_are_not_there(tmp_path):
    for name in "12":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "list.csv").write_text("filepath,image_id,id,path,label\na.png,1,1,a.png,x\nb.png,2,2,b.png,y\n")

    with pytest.raises(VptError, match=r"line 2: no such file: a\.png"):
        read_labelled(tmp_path / "list.csv")


def test_an_id_of_no_image_beside_a_column_that_names_them_is_told(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    source = tmp_path / "list.csv"
    source.write_text("ID,scan,label\nP1,a.png,x\nP2,b.png,y\n")

    with pytest.raises(
        VptError, match="the column ID names no image that is there, but scan does; rename scan to path"
    ):
        read_labelled(source)
    source.write_text(source.read_text().replace("scan", "path"))
    assert len(read_labelled(source).cases) == 2


def test_an_image_on_two_lines_with_two_labels_is_told_with_both(tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "list.csv").write_text("path,label\na.png,mass\nb.png,edema\na.png,edema\na.png,mass\n")

    _, problems = survey_labelled(tmp_path / "list.csv")

    assert [str(problem).partition("line ")[2] for problem in problems] == [
        "4: a.png is already on line 2, as mass there, and edema here; write one line with all that is right, with | "
        "between",
        "5: a.png is already on line 2; keep one of the two",
    ]


def test_a_list_apart_from_its_images_is_told_where_to_go(tmp_path):
    (tmp_path / "truth").mkdir()
    for name in "ab":
        picture(tmp_path / "input" / f"{name}.png")
    (tmp_path / "truth/list.csv").write_text("image,label\na,x\nb,y\n")

    with pytest.raises(VptError, match="move the list into the folder that holds the images, or that of their folders"):
        read_labelled(tmp_path / "truth/list.csv")
    (tmp_path / "truth/list.csv").rename(tmp_path / "list.csv")
    assert len(read_labelled(tmp_path / "list.csv").cases) == 2


@pytest.mark.parametrize("inner", ["2750", "BreaKHis_v1/histology_slides/breast"])
def test_a_set_in_the_folder_of_its_archive_is_named(tmp_path, inner):
    folders(tmp_path / inner, cat=2, dog=2)
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides/a.svs").write_text("no image that can be read")

    with pytest.raises(VptError) as caught:
        read_dataset(tmp_path)

    found = tmp_path / inner
    assert str(caught.value) == f"{tmp_path}: no data set by itself, but the folder in it is one; give that ({found})"
    assert read_labelled(found).classes == ("cat", "dog")


@pytest.mark.parametrize("beside", ["a.png", "more/a.png"])
def test_a_set_beside_other_images_is_not_named(tmp_path, beside):
    folders(tmp_path / "inner", cat=2, dog=2)
    picture(tmp_path / beside)

    with pytest.raises(VptError) as caught:
        read_dataset(tmp_path)

    assert "give that" not in str(caught.value)
