"""Bad input: what is wrong, what is typed, the exit code, the message and the hint."""

from __future__ import annotations

import errno
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import models
from onnx_shapprune.cli import cli

Setup = Callable[[pytest.MonkeyPatch], None]
Row = tuple[str, str, int, str, str]

PRUNE = "prune net.onnx -o out.onnx --keep 0.5 --estimator l1"
DATA = "--data data.npz"
CUT = f"-o out.onnx {DATA} --keep 0.5 --estimator l1"
USAGE = "Try 'onnx-shapprune prune -*' for help."
WANTS = "the model has 'x' float32 (N, 2, 6, 6)"
SIZES = "the model expects (samples, 2, 6, 6)"
DEFECT = "this is a defect"


# --- the files that are wrong ----------------------------------------------------------------


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of good and bad files, so that commands and messages have short paths."""
    monkeypatch.chdir(tmp_path)
    models.workplace(tmp_path)
    good = Path("net.onnx").read_bytes()
    write_no_models(good)
    write_bad_models()
    write_external()
    write_data()
    write_scores()
    Path("there.onnx").write_bytes(b"precious")
    Path("link.onnx").symlink_to("net.onnx")


def write_no_models(good: bytes) -> None:
    """Files that are no models."""
    Path("folder.onnx").mkdir()
    for name, content in {
        "empty": b"",
        "truncated": good[: len(good) // 2],
        "text": b"This is the model you asked for.\n",
        "random": np.random.default_rng(0).bytes(500),
    }.items():
        Path(f"{name}.onnx").write_bytes(content)


def write_bad_models() -> None:
    """Models that can't be read, run or judged."""
    for name in ("unknown_operator", "integer_output", "not_a_number", "no_inputs", "dangling"):
        models.save(getattr(models, name)(), Path(f"{name}.onnx"))
    versions = models.sequential()
    versions.ir_version = 14
    models.save(versions, Path("ir.onnx"))
    versions.ir_version, versions.opset_import[0].version = 10, 27
    models.save(versions, Path("opset.onnx"))
    models.save(models.sequential(classes=5), Path("five.onnx"))
    models.save(models.renamed_input(), Path("renamed.onnx"))
    for classes in (3, 5):
        open_ended = models.sequential(classes=classes)
        open_ended.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "classes"
        models.save(open_ended, Path(f"open{classes}.onnx"))


def write_external() -> None:
    """Models whose weights are beside them, or should be."""
    for name, location in {
        "gone": "nowhere.bin",
        "outside": "../outside.bin",
        "sneaky": "sub/../../outside.bin",
        "absolute": str(Path("outside.bin").absolute()),
        "linked": "link.bin",
        "short": "weights.bin",
    }.items():
        Path(name).mkdir()
        models.external(Path(name), location)
    Path("outside.bin").write_bytes(Path("gone/weights.bin").read_bytes())
    Path("linked/link.bin").symlink_to("../outside.bin")
    Path("short/weights.bin").write_bytes(b"few")


def write_data() -> None:
    """Samples that don't fit the model."""
    x = models.samples()
    spoiled = {name: x.copy() for name in ("nan", "inf")}
    spoiled["nan"][3, 1, 2, 2], spoiled["inf"][5, 0, 0, 0] = np.nan, np.inf
    for name, arrays in {
        "named": {"y": x},
        "more": {"x": x, "mask": x},
        "none": {},
        "double": {"x": x.astype(np.int64)},
        "small": {"x": x[..., :5]},
        "flat": {"x": x[0]},
        "zero": {"x": x[:0]},
        "three": {"x": x[:3]},
        "uneven": {"x": x, "labels": models.labels()[:5]},
        "wordy": {"x": x, "labels": models.labels().astype(np.float32)},
        "minus": {"x": x, "labels": models.labels() - 1},
        "beyond": {"x": x, "labels": models.labels() + 1},
        "pickled": {"x": np.array([{"a": 1}], dtype=object)},
        **{name: {"x": array} for name, array in spoiled.items()},
        "unlabelled": {"x": x},
    }.items():
        np.savez(f"{name}.npz", **arrays)
    Path("damaged.npz").write_bytes(Path("data.npz").read_bytes()[:200])
    Path("data.csv").write_text("1,2\n")
    Path("photos").mkdir()
    Path("widths.toml").write_text("[[group]]\nmembers = ['conv?']\n")


def write_scores() -> None:
    """Scores that don't belong to the model."""
    found = CliRunner().invoke(cli, shlex.split(f"score net.onnx {DATA} --estimator l1"))
    good = json.loads(found.stdout)
    first, *rest = good["groups"]

    def write(name: str, **changes: Any) -> None:
        Path(f"{name}.json").write_text(json.dumps(good | changes))

    Path("broken.json").write_text("{")
    Path("list.json").write_text("[1, 2]")
    Path("binary.json").write_bytes(b"\xff\xfe\x00")
    write("version", schema_version=99)
    write("other", model_sha256="0" * 64)
    write("unknown", groups=[first | {"name": "conv9"}, *rest])
    write("few", groups=[first | {"values": first["values"][:4]}, *rest])
    lists = {name: first[name][:4] for name in ("values", "stderr")}
    write("fewer", groups=[first | {"players": 4} | lists, *rest])
    write("notnumbers", groups=[first | {"values": [float("nan")] * 6}, *rest])
    write("words", groups=[first | {"values": ["high"] * 6}, *rest])
    write("lacking", groups=[{"name": "conv1"}])
    write("endless", seed=float("inf"))


# --- the table -------------------------------------------------------------------------------

MODELS: list[Row] = [
    (
        "missing",
        f"prune none.onnx {CUT}",
        1,
        "there is no file 'none.onnx'",
        "give the path of an .onnx file",
    ),
    (
        "missing, inspect",
        "inspect none.onnx",
        1,
        "there is no file 'none.onnx'",
        "give the path of an .onnx file",
    ),
    (
        "missing, score",
        f"score none.onnx {DATA}",
        1,
        "there is no file 'none.onnx'",
        "give the path of an .onnx file",
    ),
    (
        "missing, compare",
        f"compare net.onnx none.onnx --json {DATA}",
        1,
        "there is no file 'none.onnx'",
        "give the path of an .onnx file",
    ),
    (
        "empty",
        f"prune empty.onnx {CUT}",
        1,
        "'empty.onnx' is no ONNX model: it has no graph",
        "export or download it again",
    ),
    (
        "truncated",
        f"prune truncated.onnx {CUT}",
        1,
        "'truncated.onnx' is no ONNX model, or it is truncated",
        "export or download it again",
    ),
    (
        "text",
        f"prune text.onnx {CUT}",
        1,
        "'text.onnx' is no ONNX model, or it is truncated",
        "export or download it again",
    ),
    (
        "random bytes",
        f"prune random.onnx {CUT}",
        1,
        "'random.onnx' is no ONNX model, or it is truncated",
        "export or download it again",
    ),
    (
        "samples instead of a model",
        "inspect data.npz",
        1,
        "'data.npz' is no ONNX model, or it is truncated",
        "export or download it again",
    ),
    (
        "a directory",
        f"prune folder.onnx {CUT}",
        1,
        "'folder.onnx' is a directory",
        "give the path of an .onnx file",
    ),
    (
        "IR too new",
        f"prune ir.onnx {CUT}",
        1,
        "the model has IR version 14, ONNX Runtime reads up to 13",
        "export it with an older onnx",
    ),
    (
        "opset too new",
        f"prune opset.onnx {CUT}",
        1,
        "the model has opset 27, ONNX Runtime knows up to 26",
        "export it with opset 26 or below",
    ),
    (
        "an operator that ONNX Runtime lacks",
        f"prune unknown_operator.onnx {CUT}",
        1,
        "ONNX Runtime * can't load the model: *acme:Sparkle",
        "check that the model's operators",
    ),
    (
        "a node reads what nobody makes",
        f"prune dangling.onnx {CUT}",
        1,
        "the model is invalid: ",
        "export it again",
    ),
    (
        "no inputs",
        f"prune no_inputs.onnx {CUT}",
        1,
        "the model has no inputs",
        "there is nothing to give samples to",
    ),
    (
        "no float output",
        f"prune integer_output.onnx {CUT} --metric error",
        1,
        "metric 'error' needs a float output, the model has none",
        "use --metric match",
    ),
    (
        "outputs are NaN",
        f"prune not_a_number.onnx {CUT}",
        1,
        "the model's output 'y' is not finite on these samples",
        "check the samples' range and preprocessing",
    ),
    (
        "external data missing",
        f"prune gone/external.onnx {CUT}",
        1,
        "the weights of '*' are missing: there is no file 'nowhere.bin' beside the model",
        "copy the external data file too",
    ),
    (
        "external data above the folder",
        f"prune outside/external.onnx {CUT}",
        1,
        "the weights of '*' are stored in '../outside.bin', outside of the model's folder",
        "put the file beside the model",
    ),
    (
        "external data above the folder by a detour",
        f"prune sneaky/external.onnx {CUT}",
        1,
        "the weights of '*' are stored in 'sub/../../outside.bin', outside of the model's folder",
        "put the file beside the model",
    ),
    (
        "external data at an absolute path",
        f"prune absolute/external.onnx {CUT}",
        1,
        "the weights of '*' are stored in '*/outside.bin', outside of the model's folder",
        "put the file beside the model",
    ),
    (
        "external data linked from elsewhere",
        f"prune linked/external.onnx {CUT}",
        1,
        "the weights of '*' are stored in 'link.bin', outside of the model's folder",
        "put the file beside the model",
    ),
    (
        "external data truncated",
        f"prune short/external.onnx {CUT}",
        1,
        "the external weights can't be read: ",
        "copy the external data file again",
    ),
    (
        "compared: other inputs",
        f"compare net.onnx renamed.onnx --json {DATA}",
        1,
        "the models have different inputs: x float32 * and z float32 *",
        "compare a model with its own pruned version",
    ),
    (
        "compared: other classes",
        f"compare net.onnx five.onnx --json {DATA}",
        1,
        "the models have different outputs: y float32 * and y float32 *",
        "compare a model with its own pruned version",
    ),
    (
        "compared: other classes, which only a run shows",
        f"compare open3.onnx open5.onnx --json {DATA}",
        1,
        "the models have different outputs",
        "compare a model with its own pruned version",
    ),
    (
        "compared: other classes, which only a run shows, by labels",
        f"compare open3.onnx open5.onnx --json --labels {DATA}",
        1,
        "the models have different outputs",
        "compare a model with its own pruned version",
    ),
]

SAMPLES: list[Row] = [
    (
        "missing data",
        f"{PRUNE} --data nowhere.npz",
        1,
        "no such file or folder: nowhere.npz",
        "check the path; data are an .npz or .npy file",
    ),
    (
        "an unknown kind of file",
        f"{PRUNE} --data data.csv",
        1,
        "data.csv is of no known kind: its ending is '.csv'",
        "data are an .npz or .npy file",
    ),
    (
        "damaged data",
        f"{PRUNE} --data damaged.npz",
        1,
        "damaged.npz is damaged, or something else",
        "write it with numpy.savez",
    ),
    (
        "pickled objects",
        f"{PRUNE} --data pickled.npz",
        1,
        "pickled.npz has pickled Python objects, which are never loaded",
        "save arrays of numbers",
    ),
    (
        "a folder for a model that takes no images",
        f"{PRUNE} --data photos",
        1,
        "input 'x' float32 (N, 2, 6, 6) does not take images",
        "images need an input of 4 dimensions with 1 or 3 channels",
    ),
    (
        "a wrong name",
        f"{PRUNE} --data named.npz",
        1,
        f"no array for input 'x': got 'y', {WANTS}",
        "rename 'y' to 'x'",
    ),
    (
        "no array",
        f"{PRUNE} --data none.npz",
        1,
        f"no array for input 'x': got no arrays, {WANTS}",
        "give one array per input, by its name",
    ),
    (
        "an array too many",
        f"{PRUNE} --data more.npz",
        1,
        f"'mask' is not an input: {WANTS}",
        "leave it out; labels go by the name 'labels'",
    ),
    (
        "a wrong dtype",
        f"{PRUNE} --data double.npz",
        1,
        "input 'x' is int64, the model expects float32",
        "scale it as in training, e.g. array.astype('float32') / 255",
    ),
    (
        "a wrong shape",
        f"{PRUNE} --data small.npz",
        1,
        f"input 'x' has shape (12, 2, 6, 5), {SIZES}",
        "the first axis counts the samples",
    ),
    (
        "one sample without the sample axis",
        f"{PRUNE} --data flat.npz",
        1,
        f"input 'x' has shape (2, 6, 6), {SIZES}",
        "the first axis counts the samples: give array[None] for one sample",
    ),
    (
        "NaN",
        f"{PRUNE} --data nan.npz",
        1,
        "input 'x' has NaN or infinite values: 1 of 12 samples, the first is sample 3",
        "correct these samples or leave them out",
    ),
    (
        "infinity",
        f"{PRUNE} --data inf.npz",
        1,
        "input 'x' has NaN or infinite values: 1 of 12 samples, the first is sample 5",
        "correct these samples or leave them out",
    ),
    (
        "no samples",
        f"{PRUNE} --data zero.npz",
        1,
        "input 'x' has no values: shape (0, 2, 6, 6)",
        "give at least one sample",
    ),
    (
        "fewer samples than the batch",
        "prune fixed.onnx -o out.onnx --keep 0.5 --data three.npz",
        1,
        "fewer samples than the model's fixed batch: 3, the batch is 4",
        "give 4 samples or more",
    ),
    (
        "no random samples",
        f"{PRUNE} --data random:0",
        1,
        "'random:0' has no usable number of samples",
        "write random:16 for 16 samples",
    ),
    (
        "random samples of open sizes",
        "prune open.onnx -o out.onnx --keep 0.5 --data random:4",
        1,
        "input 'x' (N, 2, height, width): not all dimensions are known",
        "give --dim height=NUMBER --dim width=NUMBER",
    ),
    (
        "preprocessing for arrays",
        f"{PRUNE} {DATA} --preprocess imagenet",
        1,
        "preprocessing 'imagenet' is for images, the data are none",
        "leave it out",
    ),
    (
        "fewer labels than samples",
        f"{PRUNE} --data uneven.npz",
        1,
        "there are 5 labels for 12 samples",
        "give one class index per sample, in an array of integers",
    ),
    (
        "labels that are no integers",
        f"{PRUNE} --data wordy.npz",
        1,
        "labels are float32, expected integers",
        "give one class index per sample, in an array of integers",
    ),
    (
        "negative labels",
        f"{PRUNE} --data minus.npz",
        1,
        "labels go from -1 to 1, expected class indices from 0",
        "leave samples without a class out",
    ),
    (
        "labels beyond the classes",
        f"{PRUNE} --data beyond.npz --metric accuracy",
        1,
        "label 3 is out of range: the model has the classes 0 to 2",
        "check that the labels belong to this model",
    ),
    (
        "labels beyond the classes, compare",
        "compare net.onnx net.onnx --labels --json --data beyond.npz",
        1,
        "label 3 is out of range: the model has the classes 0 to 2",
        "check that the labels belong to this model",
    ),
    (
        "no labels",
        f"{PRUNE} --data unlabelled.npz --metric cross-entropy",
        1,
        "metric 'cross-entropy' needs labels, the data have none",
        "add an array 'labels' to the .npz",
    ),
]

OPTIONS: list[Row] = [
    ("--keep 0", f"{PRUNE} {DATA} --keep 0", 2, "Invalid value for '--keep'", USAGE),
    ("--keep 1.5", f"{PRUNE} {DATA} --keep 1.5", 2, "Invalid value for '--keep'", USAGE),
    ("--keep nan", f"{PRUNE} {DATA} --keep nan", 2, "Invalid value for '--keep'", USAGE),
    ("--keep half", f"{PRUNE} {DATA} --keep half", 2, "Invalid value for '--keep'", USAGE),
    ("no --keep", f"prune net.onnx -o out.onnx {DATA}", 2, "Missing option '--keep'", USAGE),
    ("no -o", f"prune net.onnx --keep 0.5 {DATA}", 2, "Missing option '-o' / '--output'", USAGE),
    ("no --data", PRUNE, 2, "Missing option '--data'", USAGE),
    ("no model", f"prune -o out.onnx --keep 0.5 {DATA}", 2, "Missing argument 'MODEL'", USAGE),
    ("--of", f"{PRUNE} {DATA} --of watts", 2, "Invalid value for '--of'", USAGE),
    ("--estimator", f"{PRUNE} {DATA} --estimator x", 2, "Invalid value for '--estimator'", USAGE),
    ("--metric", f"{PRUNE} {DATA} --metric x", 2, "Invalid value for '--metric'", USAGE),
    ("--absent", f"{PRUNE} {DATA} --absent x", 2, "Invalid value for '--absent'", USAGE),
    ("--provider", f"{PRUNE} {DATA} --provider x", 2, "Invalid value for '--provider'", USAGE),
    ("--seed", f"{PRUNE} {DATA} --seed -1", 2, "Invalid value for '--seed'", USAGE),
    ("--round-to", f"{PRUNE} {DATA} --round-to 0", 2, "Invalid value for '--round-to'", USAGE),
    (
        "--min-channels",
        f"{PRUNE} {DATA} --min-channels 0",
        2,
        "Invalid value for '--min-channels'",
        USAGE,
    ),
    ("an unknown option", f"{PRUNE} {DATA} --fast", 2, "No such option", USAGE),
    (
        "--budget 0",
        f"{PRUNE} {DATA} --budget 0",
        2,
        "Invalid value for '--budget': the budget is 0, it must be at least 1; give auto",
        USAGE,
    ),
    (
        "--budget some",
        f"{PRUNE} {DATA} --budget some",
        2,
        "Invalid value for '--budget': the budget 'some' is no number of evaluations; give auto",
        USAGE,
    ),
    (
        "--dim without a number",
        f"{PRUNE} {DATA} --dim N",
        2,
        "Invalid value for '--dim': 'N' is not of the form NAME=N, e.g. height=224",
        USAGE,
    ),
    (
        "--dim 0",
        f"{PRUNE} {DATA} --dim N=0",
        2,
        "Invalid value for '--dim': 'N=0' is not of the form NAME=N, e.g. height=224",
        USAGE,
    ),
    (
        "--dim with a digit that is no number",
        f"{PRUNE} {DATA} --dim N=²",
        2,
        "Invalid value for '--dim': 'N=²' is not of the form NAME=N, e.g. height=224",
        USAGE,
    ),
    (
        "--dim with an endless number",
        f"{PRUNE} {DATA} --dim N={'9' * 5000}",
        2,
        "Invalid value for '--dim': 'N=999*' is not of the form NAME=N, e.g. height=224",
        USAGE,
    ),
    (
        "--dim of another name",
        f"{PRUNE} {DATA} --dim heigth=6",
        1,
        "no input has a dimension 'heigth'",
        "the dimensions are 'N'",
    ),
    (
        "--dim of another name, inspect",
        "inspect open.onnx --dim heigth=6",
        1,
        "no input has a dimension 'heigth'",
        "the dimensions are 'N', 'height', 'width'",
    ),
    (
        "a pattern that matches nothing",
        f"{PRUNE} {DATA} --exclude 'dense*'",
        1,
        "--exclude 'dense*' matches no node and no tensor",
        "see the names with: onnx-shapprune inspect MODEL",
    ),
    (
        "no such file of groups",
        f"{PRUNE} {DATA} --groups none.toml",
        1,
        "none.toml can't be read: No such file or directory",
        "check the path given for --groups",
    ),
    (
        "a file of groups that is none",
        f"{PRUNE} {DATA} --groups data.csv",
        1,
        "data.csv is not TOML: ",
        'write lines such as: forbid = ["conv1"]',
    ),
    (
        "a group that can't be had, score",
        f"score net.onnx {DATA} --groups widths.toml",
        1,
        "widths.toml: group number 1: Conv 'conv1' has 6 channels, Conv 'conv2' has 8",
        "join nodes of the same number of channels",
    ),
    (
        "a budget that is too small",
        f"{PRUNE} {DATA} --estimator exact --budget 3",
        1,
        "exact needs 64 evaluations for 6 players, the budget is 3",
        "give --budget 64 or more, or --budget auto",
    ),
    (
        "a class metric without classes",
        f"prune stuck.onnx {CUT} --metric kl",
        1,
        "metric 'kl' needs one output of class scores, shape [samples, classes]",
        "use --metric error",
    ),
]

AGAIN = "make them with: onnx-shapprune score MODEL --data D -o SCORES.json"
SCORED = f"prune net.onnx -o out.onnx --keep 0.5 {DATA} --scores"

SCORES: list[Row] = [
    (
        "missing scores",
        f"{SCORED} none.json",
        1,
        "can't read 'none.json': No such file or directory",
        AGAIN,
    ),
    (
        "scores are a folder",
        f"{SCORED} photos",
        1,
        "can't read 'photos': Is a directory",
        AGAIN,
    ),
    (
        "an estimator beside scores",
        f"{PRUNE} {DATA} --scores other.json",
        2,
        "--estimator has no effect with --scores: leave one of them out",
        USAGE,
    ),
    ("scores are no JSON", f"{SCORED} broken.json", 1, "'broken.json' is no JSON file: ", AGAIN),
    ("scores are no text", f"{SCORED} binary.json", 1, "'binary.json' is no JSON file: ", AGAIN),
    (
        "scores are something else",
        f"{SCORED} list.json",
        1,
        "'list.json' has schema version None, this program reads 1",
        AGAIN,
    ),
    (
        "scores of another version",
        f"{SCORED} version.json",
        1,
        "'version.json' has schema version 99, this program reads 1",
        AGAIN,
    ),
    (
        "scores that lack a field",
        f"{SCORED} lacking.json",
        1,
        "'lacking.json' is no scores file: KeyError('players')",
        AGAIN,
    ),
    (
        "scores that are words",
        f"{SCORED} words.json",
        1,
        "'words.json' is no scores file: ValueError(",
        AGAIN,
    ),
    (
        "scores with an infinite seed",
        f"{SCORED} endless.json",
        1,
        "'endless.json' is no scores file: OverflowError(",
        AGAIN,
    ),
    (
        "scores of another model",
        f"{SCORED} other.json",
        1,
        "the scores are of the model 000000000000…, this is ",
        "score this model: onnx-shapprune score MODEL --data D -o SCORES.json",
    ),
    (
        "scores of an unknown group",
        f"{SCORED} unknown.json",
        1,
        "the scores name the group 'conv9', the model has none of that name",
        "give the --groups that the scores were made with, or see the groups with: "
        "onnx-shapprune inspect MODEL",
    ),
    (
        "fewer scores than players",
        f"{SCORED} few.json",
        1,
        "'few.json' is no scores file: ValueError('not a list of 6 numbers')",
        AGAIN,
    ),
    (
        "scores for fewer players",
        f"{SCORED} fewer.json",
        1,
        "the scores of group 'conv1' are not 6 finite numbers",
        "score this model again",
    ),
    (
        "scores that are NaN",
        f"{SCORED} notnumbers.json",
        1,
        "the scores of group 'conv1' are not 6 finite numbers",
        "score this model again",
    ),
]

TO = f"prune net.onnx --keep 0.5 --estimator l1 {DATA} -o"
SCORE_TO = f"score net.onnx --estimator l1 {DATA} -o"

OUTPUTS: list[Row] = [
    (
        "no such folder",
        f"{TO} far/away.onnx",
        1,
        "the folder '*/far' does not exist",
        "create it first",
    ),
    (
        "no such folder, score",
        f"{SCORE_TO} far/away.json",
        1,
        "the folder '*/far' does not exist",
        "create it first",
    ),
    (
        "no such folder for the report",
        f"{PRUNE} {DATA} --report far/away.json",
        1,
        "the folder '*/far' does not exist",
        "create it first",
    ),
    (
        "the folder is a file",
        f"{TO} there.onnx/out.onnx",
        1,
        "the folder '*/there.onnx' does not exist",
        "create it first",
    ),
    (
        "the output is a directory",
        f"{TO} photos --force",
        1,
        "'photos' is a directory",
        "give a file name",
    ),
    (
        "the output exists",
        f"{TO} there.onnx",
        1,
        "'there.onnx' exists already",
        "use --force to replace it",
    ),
    (
        "the output exists, score",
        f"{SCORE_TO} other.json",
        1,
        "'other.json' exists already",
        "use --force to replace it",
    ),
    (
        "the report exists",
        f"{PRUNE} {DATA} --report other.json",
        1,
        "'other.json' exists already",
        "use --force to replace it",
    ),
    (
        "the output is the source",
        f"{TO} net.onnx --force",
        1,
        "'net.onnx' is read by this command",
        "choose another output name",
    ),
    (
        "the output is a link to the source",
        f"{TO} link.onnx --force",
        1,
        "'link.onnx' is read by this command",
        "choose another output name",
    ),
    (
        "the report is the source",
        f"{PRUNE} {DATA} --report net.onnx --force",
        1,
        "'net.onnx' is read by this command",
        "choose another output name",
    ),
    (
        "the scores are the source",
        f"{SCORE_TO} net.onnx --force",
        1,
        "'net.onnx' is read by this command",
        "choose another output name",
    ),
    (
        "the output is the data",
        f"{TO} data.npz --force",
        1,
        "'data.npz' is read by this command",
        "choose another output name",
    ),
    (
        "the scores are the data",
        f"{SCORE_TO} ./data.npz --force",
        1,
        "'data.npz' is read by this command",
        "choose another output name",
    ),
    (
        "the report is the scores",
        f"prune net.onnx -o out.onnx --keep 0.5 {DATA} --scores other.json --report other.json "
        "--force",
        1,
        "'other.json' is read by this command",
        "choose another output name",
    ),
    (
        "the report is the output, by another way",
        f"{PRUNE} {DATA} --report photos/../out.onnx",
        1,
        "two outputs have the same name, 'out.onnx'",
        "give two names",
    ),
    (
        "the report is the output",
        f"{PRUNE} {DATA} --report ./out.onnx",
        1,
        "two outputs have the same name, 'out.onnx'",
        "give two names",
    ),
]

TABLE = [*MODELS, *SAMPLES, *OPTIONS, *SCORES, *OUTPUTS]


# --- the same in a bad environment -------------------------------------------------------------


def fails(place: str, number: int) -> Setup:
    """An operating system that refuses."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return lambda monkeypatch: monkeypatch.setattr(place, refuse)


def _forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may not be written to, also for root."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))


def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])


def _dead_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider is listed, but its libraries are missing."""
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: listed)
    monkeypatch.setattr("onnx_shapprune.runtime._runs_cuda", lambda: False)


FULL = "is the disk full?"
FILES = "onnx_shapprune.files"
CUDA = "CUDA was asked for, but ONNX Runtime can't use a GPU here"
INSTALL = "install the NVIDIA libraries with: pip install 'onnx-shapprune[cuda]'"

ENVIRONMENTS: list[tuple[str, Setup, str, str, str]] = [
    (
        "the folder is not writable",
        _forbidden,
        f"{PRUNE} {DATA}",
        "the folder '*' is not writable",
        "choose another place",
    ),
    (
        "a read-only file system",
        fails(f"{FILES}.tempfile.mkstemp", errno.EROFS),
        f"{PRUNE} {DATA}",
        "can't write 'out.onnx': Read-only file system",
        FULL,
    ),
    (
        "a full disk",
        fails("onnx_shapprune.model_io.write_whole", errno.ENOSPC),
        f"{PRUNE} {DATA}",
        "can't write 'out.onnx': No space left on device",
        FULL,
    ),
    (
        "a full disk at the last step",
        fails(f"{FILES}.os.replace", errno.ENOSPC),
        f"{PRUNE} {DATA}",
        "can't write 'out.onnx': No space left on device",
        FULL,
    ),
    (
        "a full disk for the copy of a model with nothing to prune",
        fails("shutil.copyfile", errno.ENOSPC),
        f"prune stuck.onnx {CUT}",
        "can't write 'out.onnx': No space left on device",
        FULL,
    ),
    (
        "a full disk for the scores",
        fails("pathlib.Path.write_text", errno.ENOSPC),
        f"{SCORE_TO} scores.json",
        "can't write 'scores.json': No space left on device",
        FULL,
    ),
    (
        "a full disk for the report",
        fails("pathlib.Path.write_text", errno.ENOSPC),
        f"{PRUNE} {DATA} --report r.json",
        "can't write 'r.json': No space left on device",
        FULL,
    ),
    (
        "a full disk for the demo",
        fails("shutil.copyfile", errno.ENOSPC),
        "demo --out photos",
        "can't write '*': No space left on device",
        FULL,
    ),
    ("CUDA without a GPU", _no_gpu, f"{PRUNE} {DATA} --provider cuda", CUDA, INSTALL),
    ("CUDA without its libraries", _dead_gpu, f"{PRUNE} {DATA} --provider cuda", CUDA, INSTALL),
    (
        "CUDA without a GPU, compare",
        _no_gpu,
        f"compare net.onnx net.onnx --json {DATA} --provider cuda",
        CUDA,
        INSTALL,
    ),
]


def check(command: str, code: int, message: str, hint: str) -> None:
    """The exit code, one error with its hint, and nothing written."""
    before = models.contents(Path())
    result = CliRunner().invoke(cli, shlex.split(command), prog_name="onnx-shapprune")
    lines = result.output.splitlines()
    (error,) = [line for line in lines if line.startswith("Error: ")]
    assert result.exit_code == code, result.output
    assert begins(error.removeprefix("Error: "), message), error
    said = [line.removeprefix("Hint: ") for line in lines if line.startswith(("Hint: ", "Try "))]
    assert any(begins(line, hint) for line in said), result.output
    assert "Traceback" not in result.output
    assert DEFECT not in result.output
    assert result.stdout == ""
    assert models.contents(Path()) == before


def begins(text: str, pattern: str) -> bool:
    """Whether the text begins with the pattern, in which a star is anything."""
    at = 0
    for number, part in enumerate(pattern.split("*")):
        found = text.find(part, at)
        if found < 0 or (number == 0 and found > 0):
            return False
        at = found + len(part)
    return True


@pytest.mark.parametrize(
    ("command", "code", "message", "hint"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE]
)
def test_bad_input(command: str, code: int, message: str, hint: str) -> None:
    check(command, code, message, hint)


@pytest.mark.parametrize(
    ("setup", "command", "message", "hint"),
    [row[1:] for row in ENVIRONMENTS],
    ids=[row[0] for row in ENVIRONMENTS],
)
def test_bad_environment(
    setup: Setup, command: str, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup(monkeypatch)
    check(command, 1, message, hint)


LIMITED = """
import resource
from onnx_shapprune.__main__ import main

resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limits")
def test_file_that_may_not_grow() -> None:
    """A write that really fails, halfway through the model; what was there stays."""
    before = models.contents(Path())
    args = ["prune", "net.onnx", *shlex.split(CUT.replace("out.onnx", "there.onnx")), "--force"]
    found = subprocess.run(
        [sys.executable, "-B", "-c", LIMITED, *args],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert found.returncode == 1, found.stderr
    assert "Error: can't write 'there.onnx': File too large\n" in found.stderr
    assert models.contents(Path()) == before


def test_the_table_names_every_row_once() -> None:
    """Rows are found by their names."""
    names = [row[0] for row in (*TABLE, *ENVIRONMENTS)]
    assert len(names) == len(set(names))


def test_models_of_the_table_are_wrong_in_one_way_only() -> None:
    """The newest versions that are accepted really run."""
    newest = models.sequential()
    newest.ir_version = 13
    models.save(newest, Path("newest.onnx"))
    result = CliRunner().invoke(cli, ["inspect", "newest.onnx"])
    assert result.exit_code == 0, result.output
    assert onnx.load("ir.onnx").graph == newest.graph
