"""Operators with a kernel: they sum over the channels that arrive and make new ones."""

from __future__ import annotations

import numpy as np

from onnx_shapprune.types import IntArray

from .effects import Refused, Track
from .pointwise import join
from .registry import rule
from .site import Site

# --- convolutions


@rule("Conv", produces=True)
def conv(site: Site) -> None:
    """Sums over the channels that arrive and makes new ones.

    Of groups, channel k of all leaves together. Depthwise kernels pass channels on one by one.
    """
    _bias(site, 2, _convolve(site, kernel=1))


@rule("com.microsoft.FusedConv", produces=True)
def fused_conv(site: Site) -> None:
    """Like Conv; the channels of Z, which is added, and of the result leave together."""
    ids = _convolve(site, kernel=1)
    _bias(site, 2, ids)
    if site.has(3):
        join(site, 3, 1, ids)


@rule("DeformConv", produces=True)
def deform_conv(site: Site) -> None:
    """Like Conv; the channels that choose where it samples stay."""
    ids = _convolve(site, kernel=1)
    _bias(site, 3, ids)
    for _, track in (found for found in site.tracked() if found[0] > 0):
        site.lock(track.ids, "channels choose the places where it samples")
    if int(site.attribute("offset_group", 1)) > 1 and site.track(0) is not None:
        raise Refused("groups of its channels have offsets of their own")


@rule("ConvInteger", produces=True)
def conv_integer(site: Site) -> None:
    """Like Conv; its kernel may have a zero point per channel."""
    ids = _convolve(site, kernel=1)
    _parameter(site, 3, ids)


@rule("QLinearConv", produces=True)
def qlinear_conv(site: Site) -> None:
    """Like Conv; its kernel may have a scale and a zero point per channel."""
    ids = _convolve(site, kernel=3)
    for index in (4, 5):
        _parameter(site, index, ids)
    _bias(site, 8, ids)


def _convolve(site: Site, kernel: int) -> IntArray:
    """The channels that a convolution makes; its kernel shrinks with them."""
    outputs, per_group = site.weight_shape(kernel, least=2)[:2]
    groups = _group_count(site, outputs)
    track = _arriving(site, 1) if site.track(0) else None
    if groups > 1 and per_group == 1:
        ids = _depthwise(site, track, groups, outputs)
    else:
        if track is not None:
            site.slice(kernel, 1, _tied_groups(site, track, groups))
            site.read(0)
        ids = np.tile(site.produce(outputs // groups), groups)
    site.slice(kernel, 0, ids)
    site.emit(1, ids)
    return ids


def _arriving(site: Site, axis: int) -> Track | None:
    """The channels that the node sums over; ones along another axis must stay."""
    if not site.tracked():
        return None
    track = site.only_track()
    if track.axis == axis:
        return track
    site.lock(track.ids, f"channels run along axis {track.axis}, it expects axis {axis}")
    return None


def _group_count(site: Site, channels: int) -> int:
    groups = int(site.attribute("group", 1))
    if groups < 1 or channels % groups:
        raise Refused(f"its {channels} channels are not {groups} groups")
    return groups


def _depthwise(site: Site, track: Track | None, groups: int, outputs: int) -> IntArray:
    if track is None:
        raise Refused("depthwise, and its input channels must stay")
    ids = np.repeat(track.ids, outputs // groups)
    site.carry(ids)
    site.follow_attribute("group", track.ids)
    return ids


def _tied_groups(site: Site, track: Track, groups: int) -> IntArray:
    """All groups must stay equally wide: channel k of one leaves with channel k of all."""
    if len(track.ids) % groups:
        raise Refused(f"its {len(track.ids)} input channels are not {groups} groups")
    first, *others = np.split(track.ids, groups)
    for other in others:
        site.tie(first, other)
    return first


@rule("ConvTranspose", produces=True)
def conv_transpose(site: Site) -> None:
    """Like Conv; the kernel's first axis runs over all inputs, its second over one group."""
    inputs, per_group = site.weight_shape(1, least=2)[:2]
    groups = _group_count(site, inputs)
    track = _arriving(site, 1)
    if track is not None:
        site.slice(1, 0, track.ids)
    if groups > 1 and inputs == groups:
        ids = _depthwise(site, track, groups, groups * per_group)
    else:
        if track is not None:
            _tied_groups(site, track, groups)
            site.read(0)
        own = site.produce(per_group)
        site.slice(1, 1, own)
        ids = np.tile(own, groups)
    _bias(site, 2, ids)
    site.emit(1, ids)


# --- products


@rule("Gemm", "com.microsoft.FusedGemm", produces=True)
def gemm(site: Site) -> None:
    """Sums over the columns of A (rows if transA) and makes the columns of the result."""
    _bias(site, 2, _multiply(site, kernel=1))


@rule("com.microsoft.QGemm", produces=True)
def quantised_gemm(site: Site) -> None:
    """Like Gemm; its matrix may have a scale and a zero point per column."""
    ids = _multiply(site, kernel=3)
    for index in (4, 5):
        _parameter(site, index, ids)
    _bias(site, 6, ids)


def _multiply(site: Site, kernel: int) -> IntArray:
    """The columns that a Gemm makes."""
    inner, outer = (1, 0) if site.attribute("transB", 0) else (0, 1)
    outputs = site.weight_shape(kernel, least=2)[outer]
    track = _arriving(site, 0 if site.attribute("transA", 0) else 1)
    if track is not None:
        site.slice(kernel, inner, track.ids)
        site.read(0)
    ids = site.produce(outputs)
    site.slice(kernel, outer, ids)
    site.emit(1, ids)
    return ids


@rule("MatMul", produces=True)
def matmul(site: Site) -> None:
    """With a stored matrix like Gemm; of two activations, the shared axis is summed over."""
    if site.is_constant(1):
        _times_matrix(site, kernel=1)
    elif site.tracked() and site.is_constant(0):
        _matrix_times(site)
    elif site.tracked():
        _product(site)


@rule("MatMulInteger", produces=True)
def matmul_integer(site: Site) -> None:
    """Like MatMul with a stored matrix, which may have a zero point per column."""
    ids = _times_matrix(site, kernel=1)
    _require_single(site, 2)
    _parameter(site, 3, ids)


@rule("QLinearMatMul", produces=True)
def qlinear_matmul(site: Site) -> None:
    """Like MatMul with a stored matrix, which may have a scale and zero point per column."""
    ids = _times_matrix(site, kernel=3)
    for index in (1, 2, 6, 7):
        _require_single(site, index)
    for index in (4, 5):
        _parameter(site, index, ids)


def _times_matrix(site: Site, kernel: int) -> IntArray:
    """Sums over the last axis and makes another; channels along other axes pass through."""
    shape = site.weight_shape(kernel)
    if len(shape) != 2:
        raise Refused(f"its weight has rank {len(shape)}, only matrices are supported")
    last = len(site.shape(0)) - 1
    track = site.only_track() if site.tracked() else None
    if track is not None and track.axis != last:
        site.emit(track.axis, track.ids)
        return np.zeros(shape[1], np.int64)
    if track is not None:
        site.slice(kernel, 0, track.ids)
        site.read(0)
    ids = site.produce(shape[1])
    site.slice(kernel, 1, ids)
    site.emit(last, ids)
    return ids


def _matrix_times(site: Site) -> None:
    """A stored matrix in front sums over the last axis but one, and makes another."""
    (_, track), shape, rank = site.tracked()[0], site.weight_shape(0), len(site.shape(1))
    if len(shape) != 2:
        raise Refused(f"its weight has rank {len(shape)}, only matrices are supported")
    if track.axis != rank - 2:
        site.emit(track.axis, track.ids)
        return
    site.slice(0, 1, track.ids)
    site.read(1)
    ids = site.produce(shape[0])
    site.slice(0, 0, ids)
    site.emit(rank - 2, ids)


_ROWS, _COLUMNS = -2, -1


def _product(site: Site) -> None:
    """Rows of the first and columns of the second pass through, as do axes in front."""
    ranks = [len(site.shape(index)) for index in (0, 1)]
    if min(ranks) < 2:
        raise Refused("a product with a vector is not supported")
    places = {index: track.axis - ranks[index] for index, track in site.tracked()}
    if (places.get(0), places.get(1)) == (_COLUMNS, _ROWS):
        one, other = (track for _, track in site.tracked())
        site.tie(one.ids, other.ids)
        site.read(0)
        return
    if places.get(0) == _COLUMNS or places.get(1) == _ROWS:
        raise Refused("it sums over channels that only one of its inputs has")
    if len(places) == 2 and len(set(places.values())) > 1:
        raise Refused("its inputs have their channels along different axes")
    ids = [track.ids for _, track in site.tracked()]
    for index, place in places.items():
        if place < _ROWS and 1 - index not in places:
            _require_broadcast(site, 1 - index, place)
    if len(places) == 2:
        site.tie(*ids)
    site.emit(max(ranks) + max(places.values()), ids[0])


def _require_broadcast(site: Site, index: int, place: int) -> None:
    """The other operand has a single entry where the channels are."""
    shape = site.shape(index)
    if len(shape) >= -place and shape[place] != 1:
        name = site.node.input[index]
        raise Refused(f"channels meet those of '{name}', which must stay or are not known")


@rule("Einsum")
def einsum(site: Site) -> None:
    """Channels keep their letter; a letter that the result does not have is summed over."""
    terms, result = _terms(site)
    letters = {terms[index][track.axis] for index, track in site.tracked()}
    if len(letters) != 1:
        raise Refused("its inputs have their channels along different axes")
    letter = letters.pop()
    ids = max((track.ids for _, track in site.tracked()), key=len)
    for index in (i for i, term in enumerate(terms) if letter in term):
        join(site, index, terms[index].index(letter), ids)
    if letter in result:
        site.emit(result.index(letter), ids)
    else:
        site.read(next(i for i, track in site.tracked() if len(track.ids) == len(ids)))


def _terms(site: Site) -> tuple[list[str], str]:
    """Letters of the axes of each input, and of the result."""
    left, arrow, right = str(site.attribute("equation")).replace(" ", "").partition("->")
    terms = left.split(",")
    ranks = [len(site.shape(index)) for index in site.inputs]
    if not arrow or "." in left or [len(set(term)) for term in terms] != ranks:
        raise Refused("its equation has dots, no result, or a letter twice in one term")
    return terms, right


# --- recurrent cells


@rule("GRU", "LSTM", "RNN")
def recurrent(site: Site) -> None:
    """Sums over the features of X; what it makes of them is not followed further."""
    track = site.only_track(2)
    if len(site.tracked()) > 1:
        raise Refused("only its first input may carry channels")
    site.slice(1, 2, track.ids)
    site.read(0)


# --- what goes with a kernel


def _bias(site: Site, index: int, ids: IntArray) -> None:
    """A bias has one entry per output channel along its last axis, or is broadcast."""
    if not site.has(index):
        return
    shape = site.weight_shape(index, "bias")
    if shape and shape[-1] != 1:
        site.slice(index, len(shape) - 1, ids)


def _parameter(site: Site, index: int, ids: IntArray) -> None:
    """A parameter of quantisation: one for all channels, or one for each."""
    if site.has(index) and site.weight_shape(index, "parameter") not in ((), (1,)):
        site.slice(index, 0, ids)


def _require_single(site: Site, index: int) -> None:
    if site.has(index) and site.weight_shape(index, "parameter") not in ((), (1,)):
        raise Refused("its input is quantised by rows")
