"""The command line. Commands import what they need when they run: ``--help`` is quick."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from . import __version__, options
from .command import Command
from .errors import NothingToPrune, TargetUnreachable

if TYPE_CHECKING:
    from .bench import Bench
    from .model_io import Model
    from .pipeline import Result
    from .tree import Order

_PATH = click.Path(path_type=Path)


class _Group(click.Group):
    command_class = Command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="onnx-shapprune")
def cli() -> None:
    """Make an ONNX model smaller and faster by removing channels, exactly.

    \b
    Try it:        onnx-shapprune demo
    Look first:    onnx-shapprune inspect model.onnx
    Then prune:    onnx-shapprune prune model.onnx -o small.onnx --data samples.npz --keep 0.5
    """


@cli.command()
@options.model
@options.dims
@options.exclude
@click.option(
    "--sort",
    type=click.Choice(options.ORDERS),
    default="graph",
    show_default=True,
    help="Groups in the order of the graph, or those first that cost the most.",
)
@options.allow
@options.groups
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@options.verbose
def inspect(
    model: Path,
    dims: dict[str, int],
    exclude: tuple[str, ...],
    sort: Order,
    allow: tuple[str, ...],
    groups: Path | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Show what can be removed from MODEL, what it costs, and what stands in the way.

    \b
    onnx-shapprune inspect model.onnx
    onnx-shapprune inspect model.onnx --sort cost -v
    onnx-shapprune inspect model.onnx --dim height=224 --dim width=224 --json
    onnx-shapprune inspect model.onnx --groups groups.toml
    """
    from .documents import dump
    from .groups_file import load_wishes
    from .inspection import inspect_model
    from .model_io import load_model
    from .tree import show_inspection

    wishes = load_wishes(groups, exclude, approximate="approximate" in allow)
    found = inspect_model(load_model(model), dims, wishes)
    if as_json:
        click.echo(dump(found.to_json()), nl=False)
    else:
        show_inspection(found, sys.stdout, order=sort, verbose=verbose)


@cli.command()
@options.model
@options.samples
@options.scoring
@click.option("-o", "--output", metavar="SCORES.json", type=_PATH, help="Default: print them.")
@options.force
@options.loudness
def score(
    output: Path | None, estimator: str, budget: str, metric: str, force: bool, **bench_options: Any
) -> None:
    """Score the channels of MODEL; prune can use the scores again with --scores.

    \b
    onnx-shapprune score model.onnx --data samples.npz -o scores.json
    onnx-shapprune score model.onnx --data photos/ --preprocess imagenet --budget 16n
    """
    from .documents import dump, write_json
    from .files import claim
    from .model_io import load_model
    from .progress import progress_for
    from .report import scores_to_json
    from .scoring import Scoring
    from .scoring import score as score_groups

    bench_options["model"] = load_model(bench_options["model"])
    if output is not None:
        claim([output], _read_by(bench_options), force=force)
    quiet = bench_options["quiet"]
    bench = _open(bench_options)
    if not bench.groups:
        raise NothingToPrune(
            "no channel of this model can be removed exactly", "see: onnx-shapprune inspect MODEL"
        )
    how = Scoring(estimator, budget, metric, bench_options["seed"])
    data = scores_to_json(score_groups(bench, how, progress_for(sys.stderr, quiet=quiet)))
    if output is None:
        click.echo(dump(data), nl=False)
    else:
        write_json(output, data)


@cli.command()
@options.model
@click.option("-o", "--output", metavar="OUT.onnx", type=_PATH, required=True, help="The result.")
@options.samples
@click.option(
    "--keep",
    type=click.FloatRange(0, 1, min_open=True),
    required=True,
    callback=options.parse_share,
    help="Share of the cost to keep.",
)
@click.option(
    "--of",
    type=click.Choice(options.QUANTITIES),
    default="macs",
    show_default=True,
    help="The cost that is meant.",
)
@click.option("--scores", "scores_file", type=_PATH, help="Scores made earlier by score -o.")
@options.scoring
@click.option("--round-to", type=click.IntRange(1), default=1, help="Widths in multiples of N.")
@click.option(
    "--min-channels",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Least channels of a group.",
)
@click.option("--report", metavar="R.json", type=_PATH, help="Write what was done, as JSON.")
@click.option("--best-effort", is_flag=True, help="Write OUT even if the target is out of reach.")
@click.option(
    "--external-data",
    is_flag=True,
    help="Keep the weights beside OUT, in OUT.onnx.data: for runtimes that map them instead of "
    "loading them, or near the 2 GiB that one file can hold. Above that it is done anyway.",
)
@options.force
@options.loudness
def prune(
    output: Path,
    report: Path | None,
    force: bool,
    best_effort: bool,
    external_data: bool,
    **rest: Any,
) -> None:
    """Prune MODEL down to a share of its cost, verify the result and write it.

    \b
    onnx-shapprune prune model.onnx -o small.onnx --data samples.npz --keep 0.5
    onnx-shapprune prune model.onnx -o small.onnx --data photos/ --preprocess imagenet \\
        --keep 0.3 --of parameters --round-to 8 --report report.json
    \b
    Exit codes: 0 done, 1 error, 2 wrong usage, 3 nothing to prune (OUT is the unchanged
    model), 4 target out of reach (OUT is not written without --best-effort), 130 interrupted.
    """
    from .files import claim
    from .model_io import load_model, output_files

    if rest["scores_file"] is not None:
        _require_unset("estimator", "budget")
    rest["model"] = model = load_model(rest["model"])
    reports = () if report is None else (report,)
    outputs = output_files(model.proto, output, external_data=external_data)
    claim((*outputs, *reports), _read_by(rest), force=force)
    try:
        result = _prune(**rest)
    except NothingToPrune as end:
        _finish(end.result, rest, report, partial(_save_unchanged, model, output, external_data))
        raise
    except TargetUnreachable as end:
        save = partial(_save, end.result, output, external_data) if best_effort else _save_nothing
        _finish(end.result, rest, report, save)
        raise
    _finish(result, rest, report, partial(_save, result, output, external_data))


@cli.command()
@click.argument("a", type=_PATH)
@click.argument("b", type=_PATH)
@options.samples
@click.option("--labels", is_flag=True, help="Judge by the labels in the data: accuracy.")
@options.seed
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def compare(b: Path, labels: bool, as_json: bool, **rest: Any) -> None:
    """Compare model B with model A: cost, quality, agreement and speed.

    \b
    onnx-shapprune compare model.onnx small.onnx --data samples.npz
    onnx-shapprune compare model.onnx small.onnx --data test.npz --labels --json
    """
    from .comparison import compare as compare_models
    from .console import show_comparison
    from .documents import dump
    from .model_io import load_model

    bench = _open({**rest, "model": rest.pop("a"), "quiet": as_json})
    found = compare_models(bench, load_model(b), "accuracy" if labels else "auto")
    if as_json:
        click.echo(dump(found.to_json()), nl=False)
    else:
        show_comparison(found, sys.stdout)


@cli.command()
@click.option(
    "--out",
    "folder",
    metavar="DIR",
    type=_PATH,
    default=Path("onnx-shapprune-demo"),
    show_default=True,
    help="Where its files go.",
)
def demo(folder: Path) -> None:
    """Prune a trained LeNet-5 on real photos, in under a minute and without a network.

    \b
    onnx-shapprune demo
    onnx-shapprune demo --out somewhere
    """
    from .demo import run_demo
    from .progress import progress_for

    run_demo(folder, sys.stdout, progress_for(sys.stderr, quiet=False))


def _open(given: dict[str, Any]) -> Bench:
    """The bench that the options describe; says where it runs and what was assumed."""
    from .groups_file import load_wishes
    from .pipeline import open_bench
    from .runtime import describe

    bench = open_bench(
        given["model"],
        given["data"],
        preprocess=given["preprocess"],
        dims=given["dims"],
        wishes=load_wishes(
            given.get("groups"),
            given.get("exclude", ()),
            approximate="approximate" in given.get("allow", ()),
        ),
        absent=given.get("absent", "zero"),  # compare: nothing is absent, no means are needed
        provider=given["provider"],
        seed=given["seed"],
    )
    if not given["quiet"]:
        click.echo(describe(bench.provider), err=True)
        for note in bench.notes:
            click.echo(f"Note: {note}", err=True)
    return bench


def _read_by(given: dict[str, Any]) -> list[Path]:
    """Files that a command reads, as far as they are files and not a preset or a number."""
    others = (given["data"], given["preprocess"], given.get("scores_file"), given.get("groups"))
    return [*given["model"].files, *(Path(name) for name in others if name is not None)]


def _require_unset(*names: str) -> None:
    """Options that mean nothing beside --scores must not look as if they did."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name} has no effect with --scores: leave one of them out")


def _prune(
    *,
    keep: float,
    of: Any,
    scores_file: Path | None,
    round_to: int,
    min_channels: int,
    estimator: str,
    budget: str,
    metric: str,
    **rest: Any,
) -> Result:
    from .allocation import Limits
    from .documents import read_scores
    from .pipeline import prune as prune_bench
    from .progress import progress_for
    from .scoring import Scoring

    scores = None if scores_file is None else read_scores(scores_file)
    return prune_bench(
        _open(rest),
        keep=keep,
        of=of,
        scoring=Scoring(estimator, budget, metric, rest["seed"]),
        scores=scores,
        limits=Limits(round_to, min_channels),
        progress=progress_for(sys.stderr, quiet=rest["quiet"]),
    )


def _finish(
    result: Result, given: dict[str, Any], path: Path | None, save: Callable[[], None]
) -> None:
    """Write the model and the report, both or neither, and show the report."""
    from dataclasses import replace

    from .console import show_report
    from .documents import pending_json

    report = replace(result.report, command=shlex.join(["onnx-shapprune", *sys.argv[1:]]))
    with pending_json(path, report.to_json()) if path is not None else nullcontext():
        save()
    if not given["quiet"]:
        show_report(report, sys.stderr, verbose=given["verbose"])


def _save(result: Result, output: Path, external_data: bool) -> None:
    from .model_io import save_model

    # checked before the work began
    save_model(result.proto, output, force=True, external_data=external_data)


def _save_nothing() -> None:
    """A target out of reach leaves no file."""


def _save_unchanged(model: Model, output: Path, external_data: bool) -> None:
    """The source to the byte, unless its weights are beside it, or shall be."""
    from .files import atomic_file
    from .model_io import save_model

    if external_data or model.weight_files or model.path is None:
        save_model(model.proto, output, force=True, external_data=external_data)
        return
    with atomic_file(output) as temporary:
        shutil.copyfile(model.path, temporary)
