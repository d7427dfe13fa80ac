"""Options that several commands share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .errors import OptionError

_FILE = click.Path(path_type=Path)
_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# Written out, so that --help loads nothing heavy; a test compares them with their owners.
ESTIMATORS = ("permutation", "exact", "leave-one-out", "random", "l1")
METRICS = ("auto", "kl", "error", "match", "accuracy", "cross-entropy")
QUANTITIES = ("macs", "parameters", "bytes")
ABSENT = ("mean", "zero")
ORDERS = ("graph", "cost")
ALLOWED = ("approximate",)


def parse_dims(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    """``NAME=N`` pairs as a mapping."""
    dims = {}
    for text in values:
        name, _sign, number = text.rpartition("=")
        if not name or not re.fullmatch("[1-9][0-9]{0,8}", number):
            raise click.BadParameter(f"'{text}' is not of the form NAME=N, e.g. height=224")
        dims[name] = int(number)
    return dims


def parse_share(_: click.Context, __: click.Parameter, value: float) -> float:
    """A share of the whole; the range that click knows lets NaN through."""
    if math.isnan(value):
        raise click.BadParameter("nan is no number")
    return value


def parse_budget(_: click.Context, __: click.Parameter, text: str) -> str:
    """The budget, checked while click still names the option."""
    from .estimators import Budget

    try:
        Budget.parse(text)
    except OptionError as error:
        raise click.BadParameter(f"{error}; {error.hint}") from error
    return text


model = click.argument("model", type=_FILE)

data = click.option(
    "--data",
    metavar="D",
    required=True,
    help="Samples: FILE.npz (an array per input, 'labels' optional), FILE.npy, a folder of "
    "images (sub-folders are labels), or random:N.",
)
preprocess = click.option(
    "--preprocess",
    metavar="P",
    help="How images become arrays: imagenet, unit, symmetric, raw, or FILE.toml.",
)
dims = click.option(
    "--dim",
    "dims",
    metavar="NAME=N",
    multiple=True,
    callback=parse_dims,
    help="Value of a symbolic dimension; repeatable.",
)
exclude = click.option(
    "--exclude",
    metavar="GLOB",
    multiple=True,
    help="Leave nodes alone whose name or tensors match; repeatable.",
)
allow = click.option(
    "--allow",
    type=click.Choice(ALLOWED),
    multiple=True,
    help="approximate: let means and normalisations over channels run over those that are left.",
)
groups = click.option(
    "--groups",
    metavar="FILE.toml",
    type=_FILE,
    help="Join, name or forbid groups, as a file says.",
)
provider = click.option(
    "--provider",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to run; auto takes a GPU that works.",
)
seed = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of all that is drawn."
)
estimator = click.option(
    "--estimator",
    type=click.Choice(ESTIMATORS),
    default="permutation",
    show_default=True,
    help="How channels are scored; random and l1 need no runs.",
)
budget = click.option(
    "--budget",
    metavar="B",
    default="auto",
    show_default=True,
    callback=parse_budget,
    help="Coalitions per group: auto, a number, or 8n for eight per player.",
)
metric = click.option(
    "--metric",
    type=click.Choice(METRICS),
    default="auto",
    show_default=True,
    help="Worth of a coalition; auto: agreement with the original (KL of class outputs, "
    "squared error of other floats, match of integers). accuracy and cross-entropy need labels.",
)
absent = click.option(
    "--absent",
    type=click.Choice(ABSENT),
    default="mean",
    show_default=True,
    help="What stands in for an absent channel.",
)
force = click.option("--force", is_flag=True, help="Replace existing output files.")
quiet = click.option("--quiet", "-q", is_flag=True, help="Say nothing but errors.")
verbose = click.option("--verbose", "-v", is_flag=True, help="Say everything.")

_SAMPLES = (data, preprocess, dims, provider)
_SCORING = (exclude, allow, groups, estimator, budget, metric, absent, seed)


def together(*options: _Decorator) -> _Decorator:
    """Several options as one decorator, in this order in the help."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


samples = together(*_SAMPLES)
scoring = together(*_SCORING)
loudness = together(quiet, verbose)
