"""--groups FILE.toml: channels that are joined, named, forbidden; what can't be had says why."""

from __future__ import annotations

import itertools
import json
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper

import models
from onnx_shapprune.bench import Absent
from onnx_shapprune.cli import cli
from onnx_shapprune.errors import OptionError, ScoresError
from onnx_shapprune.groups_file import load_wishes
from onnx_shapprune.passes.couplings import find_groups
from onnx_shapprune.passes.graph import Graph
from onnx_shapprune.pipeline import open_bench, prune
from onnx_shapprune.progress import SILENT
from onnx_shapprune.scoring import Scoring, score, values_by_group
from onnx_shapprune.types import Coupling, GroupWish, Wishes
from random_graphs import check, runs, seeded
from test_readme import ROOT, blocks
from zoo import ZOO, Array, Builder, Model

PAGE = "docs/groups.md"
LOOK = "see what can be cut, and what stands in the way: onnx-shapprune inspect MODEL"
LEAVE = f"leave it out of the group; {LOOK}"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- nets -------------------------------------------------------------------------------


def branches() -> Model:
    """A stem, two branches of equal width, and their concatenation."""
    rng = np.random.default_rng(0)
    nodes, stored = models.head("both", 16, rng)
    nodes = [
        models.conv("stem", "x", "c0"),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu0"),
        models.conv("left.conv", "r0", "c1"),
        models.norm_node("left.bn", "c1", "n1"),
        helper.make_node("Relu", ["n1"], ["r1"], name="left.relu"),
        models.conv("right.conv", "r0", "c2"),
        helper.make_node("Relu", ["c2"], ["r2"], name="right.relu"),
        helper.make_node("Concat", ["r1", "r2"], ["both"], name="concat", axis=1),
        *nodes,
    ]
    stored += [
        models.weight(rng, "stem.w", 6, 2, 3, 3),
        models.weight(rng, "left.conv.w", 8, 6, 3, 3),
        *models.batch_norm(rng, "left.bn", 8),
        models.weight(rng, "right.conv.w", 8, 6, 3, 3),
    ]
    return models.model(nodes, stored, ["N", models.CLASSES])


def crossed() -> Model:
    """A sum of one branch with the halves of another, swapped."""
    b = Builder()
    x = b.input("N", 3, 6, 6)
    one, other = b.conv(x, (3, 6)), b.conv(x, (3, 6), 1)
    half = b.add("Split", one, b.store([3, 3]), outputs=2, axis=1)
    x = b.add("Add", b.add("Concat", f"{half}_1", half, axis=1), other)
    return b.build(b.head(b.relu(x), (6, 3)))


def beside_the_input() -> Model:
    """A concatenation with the input itself, and with a convolution of that width."""
    b = Builder()
    x = b.input("N", 3, 6, 6)
    one = b.add("Concat", x, b.block(x, (3, 4)), axis=1)
    b.add("Slice", one, b.store([0]), b.store([3]), b.store([1]))
    x = b.add("Concat", one, b.block(x, (3, 7)), axis=1)
    return b.build(b.head(x, (14, 3)))


def overlapping() -> Model:
    """Two sums that share a part: no layer makes the channels of all."""
    b = Builder()
    x = b.input("N", 3, 6, 6)
    parts = [b.conv(x, (3, 2)) for _ in range(3)]
    sums = [
        b.add("Add", b.add("Concat", *pair, axis=1), b.conv(x, (3, 4)))
        for pair in itertools.pairwise(parts)
    ]
    return b.build(b.head(b.add("Concat", *sums, axis=1), (8, 3)))


def found(model: Model, *wishes: tuple[str, ...], forbid: tuple[str, ...] = ()) -> Coupling:
    """The coupling; a wish is a name and its members."""
    groups = tuple(GroupWish(members, name) for name, *members in wishes)
    return find_groups(Graph(model), Wishes(forbid=forbid, groups=groups))


def named(coupling: Coupling) -> dict[str, tuple[str, ...]]:
    """Members of the groups by their names."""
    return {group.name: group.members for group in coupling.groups}


# --- what is granted --------------------------------------------------------------------


def test_without_wishes_branches_are_apart() -> None:
    assert named(found(branches())) == {
        "stem": ("stem",),
        "left.conv": ("left.conv",),
        "right.conv": ("right.conv",),
    }


@pytest.mark.parametrize(
    "members",
    [
        ("left.conv", "right.conv"),
        ("right.conv", "left.conv"),
        ("*.conv",),
        ("left.*", "right.*"),
        ("left.relu", "r2"),
        ("left.conv.w", "right.conv.w"),
        ("left.bn.scale", "c2", "right.relu"),
    ],
)
def test_joined_channels_are_one_player(members: tuple[str, ...]) -> None:
    """By node, by pattern, by activation, by weight."""
    coupling = found(branches(), ("pair", *members))
    assert named(coupling) == {"stem": ("stem",), "pair": ("left.conv", "right.conv")}
    group = coupling.groups[1]
    assert group.players == 8
    read = next(cut for cut in group.reads if len(cut.owner) == 16)
    np.testing.assert_array_equal(read.owner, [*range(8), *range(8)])


def test_joined_without_a_name_has_that_of_its_first_member() -> None:
    assert "left.conv" in named(found(branches(), ("", "right.conv", "left.conv")))


def test_an_activation_is_not_what_reads_it() -> None:
    """The name of a tensor means the node that makes it, unless it is stored."""
    assert named(found(branches(), ("trunk", "r0")))["trunk"] == ("stem",)


def test_a_name_is_all_that_changes() -> None:
    plain, coupling = found(branches()), found(branches(), ("trunk", "stem"))
    assert named(coupling)["trunk"] == ("stem",)
    assert coupling.skipped == plain.skipped
    assert [g.players for g in coupling.groups] == [g.players for g in plain.groups]


def test_a_name_with_brackets_is_meant_as_it_stands() -> None:
    model = branches()
    model.graph.node[0].name = "blocks[0]"
    assert named(found(model, ("trunk", "blocks[0]")))["trunk"] == ("blocks[0]",)


def test_forbidden_channels_stay() -> None:
    coupling = found(branches(), forbid=("left.*",))
    assert list(named(coupling)) == ["stem", "right.conv"]
    entry = next(e for e in coupling.skipped if e.reason == "forbidden by 'left.*'")
    assert entry.members == ("left.conv",)


def test_joining_with_channels_that_stay_in_part() -> None:
    """What can leave leaves with its partner; partners of the rest stay, and are told."""
    coupling = found(beside_the_input(), ("pair", "Concat_3", "Conv_5"))
    assert [(g.name, g.players) for g in coupling.groups] == [("pair", 4)]
    entry = next(e for e in coupling.skipped if "meet" in e.reason)
    assert entry.members == ("Conv_5",)
    check(beside_the_input(), 0, "mean", 2, Wishes(groups=(GroupWish(("Concat_3", "Conv_5")),)))


# --- joined channels: masked ≡ removed --------------------------------------------------

JOINABLE = {
    "grouped": ("Conv_3", "Conv_6"),
    "shared_shape": ("Conv_0", "Conv_2"),
    "shared_kernel": ("Conv_0", "Conv_3"),
    "shared_vectors": ("Conv_0", "Conv_6"),
    "attention": ("Conv_3", "Conv_6"),
}


@pytest.mark.parametrize("absent", ["zero", "mean"])
@pytest.mark.parametrize("name", sorted(JOINABLE))
def test_masked_is_removed(name: str, absent: Absent) -> None:
    wishes = Wishes(groups=(GroupWish(JOINABLE[name], "pair"),))
    bench = check(ZOO[name].build(), 0, absent, 3, wishes)
    pair = next(group for group in bench.groups if group.name == "pair")
    assert set(JOINABLE[name]) <= set(pair.members)
    assert len(bench.groups) == len(ZOO[name].players) - 1


@pytest.mark.parametrize("absent", ["zero", "mean"])
def test_masked_is_removed_in_parallel_branches(absent: Absent) -> None:
    check(branches(), 0, absent, 3, Wishes(groups=(GroupWish(("*.conv",), "pair"),)))


def joinable(model: Model, rng: np.random.Generator) -> Wishes | None:
    """Members of two groups that can be joined; None if there are none."""
    pairs = list(itertools.combinations(find_groups(Graph(model)).groups, 2))
    rng.shuffle(pairs)
    for groups in pairs:
        members = tuple(str(rng.choice(group.members)) for group in groups)
        wishes = Wishes(groups=(GroupWish(members, "pair"),))
        with suppress(OptionError):
            find_groups(Graph(model), wishes)
            return wishes
    return None


def test_masked_is_removed_on_random_graphs() -> None:
    joined = 0
    for seed in range(24):
        model = seeded(seed)
        wishes = joinable(model, np.random.default_rng(seed)) if runs(model) else None
        if wishes:
            joined += 1
            bench = check(model, seed, "zero" if seed % 2 else "mean", 1, wishes)
            assert "pair" in {group.name for group in bench.groups}
    assert joined >= 10


# --- what can't be had ------------------------------------------------------------------

REFUSED: list[tuple[str, Model, list[tuple[str, ...]], tuple[str, ...], str, str]] = [
    (
        "no such node",
        branches(),
        [("pair", "left.conv", "rihgt")],
        (),
        "group 'pair': 'rihgt' matches no node and no tensor",
        LOOK,
    ),
    (
        "no such node to forbid",
        branches(),
        [],
        ("rihgt",),
        "forbid 'rihgt' matches no node and no tensor",
        "see the names with: onnx-shapprune inspect MODEL",
    ),
    (
        "an input",
        branches(),
        [("pair", "left.conv", "x")],
        (),
        "group 'pair': 'x' is an input of the model: it has no channels to remove",
        LOOK,
    ),
    (
        "no members",
        branches(),
        [("pair",)],
        (),
        "group 'pair': it has no members",
        'give patterns, such as "conv1"',
    ),
    (
        "nothing is asked",
        branches(),
        [("pair", "*.conv"), ("", "stem")],
        (),
        "group number 2: Conv 'stem' alone has nothing to leave with",
        "give more members, or a name",
    ),
    (
        "other widths",
        branches(),
        [("pair", "left.conv", "stem")],
        (),
        "group 'pair': Conv 'left.conv' has 8 channels, Conv 'stem' has 6",
        "join nodes of the same number of channels",
    ),
    (
        "the output",
        branches(),
        [("pair", "left.conv", "fc")],
        (),
        "group 'pair': the channels of Gemm 'fc' stay: "
        "its channels are the model's output 'y' (Gemm 'fc')",
        LEAVE,
    ),
    (
        "an operator that mixes the channels",
        ZOO["softmax_over_channels"].build(),
        [("pair", "Conv_3")],
        (),
        "group 'pair': the channels of Conv 'Conv_3' stay: "
        "it works along the channels (Softmax 'Softmax_4')",
        LEAVE,
    ),
    (
        "the result of such an operator",
        ZOO["softmax_over_channels"].build(),
        [("pair", "Softmax_4")],
        (),
        "group 'pair': 'Softmax_4' names Softmax 'Softmax_4', which has no channels to remove: "
        "it works along the channels",
        LOOK,
    ),
    (
        "a node without channels",
        ZOO["reshape_of_shape"].build(),
        [("pair", "Shape_*")],
        (),
        "group 'pair': 'Shape_*' names Shape 'Shape_3', which has no channels to remove",
        LOOK,
    ),
    (
        "one channel for all",
        ZOO["spatial_attention"].build(),
        [("pair", "Conv_3")],
        (),
        "group 'pair': the channels of Conv 'Conv_3' stay: "
        "a single channel is spread over all others (Mul 'Mul_5')",
        LEAVE,
    ),
    (
        "channels of the input",
        beside_the_input(),
        [("pair", "Slice_4")],
        (),
        "group 'pair': the channels of Slice 'Slice_4' stay: no layer makes them",
        LEAVE,
    ),
    (
        "forbidden",
        branches(),
        [("pair", "left.conv", "right.conv")],
        ("c2",),
        "group 'pair': the channels of Conv 'right.conv' stay: "
        "forbidden by 'c2' (Conv 'right.conv')",
        LEAVE,
    ),
    (
        "another order",
        crossed(),
        [("pair", "Conv_0", "Conv_1")],
        (),
        "group 'pair': channel 0 of Conv 'Conv_0' leaves with channel 3 of Conv 'Conv_1' "
        "already, by Add 'Add_4'",
        "leave one of them out of the group",
    ),
    (
        "another order of the same",
        crossed(),
        [("pair", "Conv_0", "Concat_3")],
        (),
        "group 'pair': channel 0 of Conv 'Conv_0' leaves with channel 3 of Concat 'Concat_3' "
        "already",
        "leave one of them out of the group",
    ),
    (
        "several groups",
        branches(),
        [("pair", "concat")],
        (),
        "group 'pair': Concat 'concat' has channels of the groups 'left.conv', 'right.conv'",
        "name or join the nodes that make the channels",
    ),
    (
        "two names for one group",
        ZOO["residual"].build(),
        [("one", "Conv_0"), ("two", "Conv_6")],
        (),
        "group 'two': its channels are in one group with those of group 'one', by Add 'Add_8'",
        "ask for one group with the members of both",
    ),
    (
        "two names for one group of other channels",
        ZOO["concat_of_sums"].build(),
        [("one", "Conv_0"), ("two", "Conv_1")],
        (),
        "group 'two': its channels are in one group with those of group 'one', by Conv 'Conv_3'",
        "ask for one group with the members of both",
    ),
    (
        "two names for one group in several steps",
        overlapping(),
        [("one", "Conv_0"), ("two", "Conv_2")],
        (),
        "group 'two': its channels are in one group with those of group 'one', "
        "by all of Conv_0, Conv_1, Conv_2, Conv_4, Conv_7",
        "ask for one group with the members of both",
    ),
    (
        "two names for the same channels",
        branches(),
        [("one", "stem"), ("two", "relu0")],
        (),
        "group 'two': its channels are in one group with those of group 'one', by Relu 'relu0'",
        "ask for one group with the members of both",
    ),
    (
        "joined twice",
        branches(),
        [("one", "left.conv", "right.conv"), ("two", "right.conv")],
        (),
        "group 'two': its channels are in one group with those of group 'one', by group 'one'",
        "ask for one group with the members of both",
    ),
    (
        "the name of another group",
        branches(),
        [("left.conv", "stem")],
        (),
        "group 'left.conv': another group has this name already",
        "choose another name",
    ),
]


@pytest.mark.parametrize(
    ("model", "wishes", "forbid", "message", "hint"),
    [row[1:] for row in REFUSED],
    ids=[row[0] for row in REFUSED],
)
def test_refused(
    model: Model, wishes: list[tuple[str, ...]], forbid: tuple[str, ...], message: str, hint: str
) -> None:
    with pytest.raises(OptionError) as caught:
        found(model, *wishes, forbid=forbid)
    assert (str(caught.value), caught.value.hint) == (message, hint)


def test_channels_that_can_only_leave_all_together() -> None:
    """Channels 0 and 2, 1 and 3 of one leave together; 0 and 1, 2 and 3 of the other."""
    b = Builder()
    x = b.input("N", 3, 6, 6)
    one = b.relu(b.conv(b.conv(x, (3, 4)), (4, 4), groups=2))
    other = b.depthwise(b.conv(x, (3, 2)), 2, 2)
    model = b.build(b.head(b.add("Concat", one, other, axis=1), (8, 3)))
    assert [group.players for group in found(model).groups] == [2, 2, 2]
    message = "the channels of Conv 'Conv_0' can only leave all together"
    with pytest.raises(OptionError, match=message) as caught:
        found(model, ("pair", "Conv_0", "Conv_4"))
    assert caught.value.hint == LOOK


# --- the file ---------------------------------------------------------------------------


def written(text: str) -> str:
    Path("g.toml").write_text(text, encoding="utf-8")
    return "g.toml"


def test_a_file_is_read() -> None:
    text = """
        forbid = ["stem"]
        [[group]]
        name = "pair"
        members = ["left.*", "right.*"]
        [[group]]
        members = ["a", "b"]
    """
    groups = (GroupWish(("left.*", "right.*"), "pair"), GroupWish(("a", "b")))
    expected = Wishes(("fc",), ("stem",), groups, "g.toml")
    assert load_wishes(written(text), ("fc",)) == expected
    assert load_wishes(Path(written(text)), ("fc",)) == expected


def test_no_file_is_no_wish() -> None:
    assert load_wishes() == Wishes()
    assert load_wishes(None, ("fc",)) == Wishes(("fc",))


LIST = 'give a list of nodes or tensors, such as {} = ["conv1", "layer2.*"]'
MEMBERS = 'members = ["a"]'
FAULTS = [
    ("", "g.toml asks for nothing", 'write [[group]], or forbid = ["conv1"]'),
    ("groups = 1", "g.toml: unknown key 'groups'", "did you mean 'group'?"),
    ("q = 1", "g.toml: unknown key 'q'", "the keys are 'forbid', 'group'"),
    (
        f"[group]\n{MEMBERS}",
        "g.toml: 'group' is no list of tables",
        "write [[group]], with two brackets, for each",
    ),
    (
        "group = [1]",
        "g.toml: 'group' is no list of tables",
        "write [[group]], with two brackets, for each",
    ),
    ('forbid = "a"', "g.toml: 'forbid' is 'a'", LIST.format("forbid")),
    ("forbid = [1]", "g.toml: 'forbid' is [1]", LIST.format("forbid")),
    (
        f"[[group]]\n{MEMBERS}\n[[group]]\nmembers = 'a'",
        "g.toml: [[group]] 2: 'members' is 'a'",
        LIST.format("members"),
    ),
    (
        "[[group]]\nmembers = ['']",
        "g.toml: [[group]] 1: 'members' is ['']",
        LIST.format("members"),
    ),
    ("[[group]]\nname = 'a'", "g.toml: [[group]] 1 has no members", 'write members = ["conv1"]'),
    (
        "[[group]]\nmembers = []",
        "g.toml: [[group]] 1 has no members",
        'write members = ["conv1"]',
    ),
    (
        f"[[group]]\n{MEMBERS}\nnmae = 'a'",
        "g.toml: [[group]] 1: unknown key 'nmae'",
        "did you mean 'name'?",
    ),
    (
        f"[[group]]\n{MEMBERS}\nname = 3",
        "g.toml: [[group]] 1: 'name' is 3",
        "give a word, or leave it out",
    ),
    (
        f"[[group]]\n{MEMBERS}\nname = ''",
        "g.toml: [[group]] 1: 'name' is ''",
        "give a word, or leave it out",
    ),
    (
        f'[[group]]\n{MEMBERS}\nname = "a\\nb"',
        "g.toml: [[group]] 1: 'name' is 'a\\nb'",
        "give a word, or leave it out",
    ),
    (
        f"[[group]]\n{MEMBERS}\nname = 'a'\n" * 2,
        "g.toml: two groups have the name 'a'",
        "give each its own name, or write one group with the members of both",
    ),
]


@pytest.mark.parametrize(("text", "message", "hint"), FAULTS)
def test_faults_of_a_file(text: str, message: str, hint: str) -> None:
    with pytest.raises(OptionError) as caught:
        load_wishes(written(text))
    assert (str(caught.value), caught.value.hint) == (message, hint)


def test_several_groups_may_have_no_name() -> None:
    wishes = load_wishes(written(f"[[group]]\n{MEMBERS}\n" * 2))
    assert [wish.name for wish in wishes.groups] == ["", ""]


# --- end to end -------------------------------------------------------------------------

PAIR = '[[group]]\nname = "pair"\nmembers = ["*.conv"]\n'
DATA = ("--data", "data.npz")


@pytest.fixture
def _work() -> None:
    models.save(branches(), Path("net.onnx"))
    np.savez("data.npz", x=models.samples())
    written(PAIR)


def stored(model: Model) -> dict[str, Array]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def run(*args: str) -> Any:
    result = CliRunner().invoke(cli, list(args), prog_name="onnx-shapprune")
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.usefixtures("_work")
def test_inspect_shows_the_groups_of_the_file() -> None:
    data = json.loads(run("inspect", "net.onnx", "--groups", "g.toml", "--json").stdout)
    assert [group["name"] for group in data["groups"]] == ["stem", "pair"]
    assert data["groups"][1]["members"] == ["left.conv", "right.conv"]
    assert "pair: 8 players" in run("inspect", "net.onnx", "--groups", "g.toml").stdout


@pytest.mark.usefixtures("_work")
def test_score_and_prune_by_the_names_of_the_file() -> None:
    run("score", "net.onnx", *DATA, "--groups", "g.toml", "--budget", "4n", "-o", "s.json")
    scores = json.loads(Path("s.json").read_text(encoding="utf-8"))
    assert [group["name"] for group in scores["groups"]] == ["stem", "pair"]
    options = ("--keep", "0.5", "--scores", "s.json", "--groups", "g.toml", "--report", "r.json")
    run("prune", "net.onnx", "-o", "out.onnx", *DATA, *options)
    report = json.loads(Path("r.json").read_text(encoding="utf-8"))
    pair = report["groups"][1]
    assert (pair["name"], pair["players"]) == ("pair", 8)
    widths = {t.name: t.dims[0] for t in onnx.load("out.onnx").graph.initializer}
    assert widths["left.conv.w"] == widths["right.conv.w"] == len(pair["kept"]) < 8


@pytest.mark.usefixtures("_work")
def test_joined_branches_lose_the_same_channels() -> None:
    wishes = Wishes(groups=(GroupWish(("*.conv",)),))
    bench = open_bench("net.onnx", "data.npz", wishes=wishes, provider="cpu")
    result = prune(bench, keep=0.5, scoring=Scoring("l1"))
    stem, pair = (part.kept for part in result.plan.groups)
    before, after = (stored(model) for model in (branches(), result.model))
    for name in ("left.conv.w", "right.conv.w"):
        np.testing.assert_array_equal(after[name], before[name][pair][:, stem])


@pytest.mark.usefixtures("_work")
def test_scores_of_other_members_are_refused() -> None:
    """As many players of the same name, but others."""
    joined = Wishes(groups=(GroupWish(("*.conv",)),))
    scores = score(
        open_bench("net.onnx", "data.npz", wishes=joined, provider="cpu"), Scoring("l1"), SILENT
    )
    message = "the scores of group 'left.conv' are of left.conv, right.conv, now it is left.conv"
    with pytest.raises(ScoresError, match=message) as caught:
        values_by_group(scores, open_bench("net.onnx", "data.npz", provider="cpu"))
    assert caught.value.hint.startswith("give the --groups and --exclude")


@pytest.mark.usefixtures("_work")
@pytest.mark.parametrize("command", ["inspect", "score", "prune"])
def test_commands_tell_what_is_wrong_with_the_file(command: str) -> None:
    written('forbid = ["rihgt"]')
    more = {"inspect": (), "score": DATA, "prune": (*DATA, "--keep", "0.5", "-o", "out.onnx")}
    args = [command, "net.onnx", *more[command], "--groups", "g.toml"]
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 1
    assert "Error: g.toml: forbid 'rihgt' matches no node and no tensor\n" in result.stderr


@pytest.mark.usefixtures("_work")
def test_the_file_is_not_overwritten() -> None:
    args = ["score", "net.onnx", *DATA, "--groups", "g.toml", "-o", "g.toml", "--force"]
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 1
    assert "'g.toml' is read by this command" in result.stderr
    assert Path("g.toml").read_text(encoding="utf-8") == PAIR


# --- documentation ----------------------------------------------------------------------


@pytest.mark.usefixtures("_work")
def test_the_page_runs_as_it_stands() -> None:
    """Its file, its commands, its code."""
    for name, path in {"net.onnx": "model.onnx", "data.npz": "samples.npz"}.items():
        Path(name).rename(path)
    (file,), (commands,), (code,) = (blocks(PAGE, kind) for kind in ("toml", "bash", "python"))
    Path("groups.toml").write_text(file, encoding="utf-8")
    for line in commands.splitlines():
        run(*shlex.split(line)[1:])
    widths = {name: array.shape[0] for name, array in stored(onnx.load("small.onnx")).items()}
    assert widths["stem.w"] == 6
    assert widths["left.conv.w"] == widths["right.conv.w"] < 8
    exec(compile(code, PAGE, "exec"), {})


def test_the_page_shows_a_message_as_it_is() -> None:
    message = "Conv 'left.conv' has 8 channels, Conv 'stem' has 6"
    assert f"`{message}`" in (ROOT / PAGE).read_text(encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        found(branches(), ("", "left.conv", "stem"))
