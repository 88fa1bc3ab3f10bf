"""The strong simple models of each field, for `jobs.py`: no network, with settings to choose from.

Each is a mapping from a description to an estimator of scikit-learn that is not fitted yet. They
read the data as it was before it was made ready for networks; validation chooses one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from minirocket import MiniRocket
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC, LinearSVC

Peers = Mapping[str, Any]


def pixels(seed: int) -> Peers:
    """A support vector machine and trees on pixels."""
    return {
        "SVC, C 10": make_pipeline(FunctionTransformer(flat), SVC(C=10)),
        "extra trees": make_pipeline(FunctionTransformer(flat), trees(seed)),
    }


def table(seed: int) -> Peers:
    """Support vector machines and trees on a table of numbers."""
    machines = {
        f"SVC, gamma {gamma}": make_pipeline(StandardScaler(), SVC(C=10, gamma=gamma))
        for gamma in (0.1, 0.2, 0.4)
    }
    return {**machines, "extra trees": trees(seed)}


def series(seed: int) -> Peers:
    """MiniRocket (Dempster et al., 2021) with the ridge regression that its authors use."""
    return {
        "MiniRocket and ridge": make_pipeline(
            MiniRocket(10_000, seed),
            StandardScaler(),
            RidgeClassifierCV(alphas=np.logspace(-3, 5, 17)),
        )
    }


def short_series(seed: int) -> Peers:
    """The same, and support vector machines on the samples themselves."""
    machines = {
        f"SVC, C {c}": make_pipeline(FunctionTransformer(flat), StandardScaler(), SVC(C=c))
        for c in (1, 10, 100)
    }
    return {**series(seed), **machines}


def text(seed: int) -> Peers:
    """Linear models on TF-IDF of words and pairs of words."""
    words = {
        f"TF-IDF and logistic regression, C {c}": make_pipeline(
            tfidf(), LogisticRegression(C=c, max_iter=1000)
        )
        for c in (1, 10, 100)
    }
    machine = LinearSVC(random_state=seed)
    return {**words, "TF-IDF and linear SVC": make_pipeline(tfidf(), machine)}


def text_and_table(seed: int) -> Peers:
    """A logistic regression on texts and columns, on each of them, and boosted trees on columns."""
    columns = make_pipeline(
        FunctionTransformer(second),
        SimpleImputer(add_indicator=True),
        StandardScaler(),
    )
    words = make_pipeline(FunctionTransformer(first), tfidf(min_df=2))
    both = {
        f"TF-IDF, columns and logistic regression, C {c}": make_pipeline(
            make_union(words, columns), LogisticRegression(C=c, max_iter=2000)
        )
        for c in (0.1, 1, 10)
    }
    boosted = HistGradientBoostingClassifier(random_state=seed)
    return {
        **both,
        "TF-IDF and logistic regression": make_pipeline(words, LogisticRegression(max_iter=2000)),
        "columns and boosted trees": make_pipeline(FunctionTransformer(second), boosted),
    }


PEERS: Mapping[str, Callable[[int], Peers]] = {
    "images": pixels,
    "signals": short_series,
    "letter": table,
    "osuleaf": series,
    "vowels": series,
    "bbc": text,
    "movies": text_and_table,
}


def tfidf(**settings: Any) -> TfidfVectorizer:
    """Words and pairs of words."""
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, stop_words="english", **settings)


def trees(seed: int) -> ExtraTreesClassifier:
    """Many trees with random splits."""
    return ExtraTreesClassifier(300, random_state=seed, n_jobs=1)


def flat(x: np.ndarray) -> np.ndarray:
    """Samples as rows of a table."""
    return x.reshape(len(x), -1)


def first(x: np.ndarray) -> np.ndarray:
    """The texts of an array of objects `(n, 1 + columns)`."""
    return x[:, 0]


def second(x: np.ndarray) -> np.ndarray:
    """The numbers of an array of objects `(n, 1 + columns)`, NaN where they are missing."""
    return x[:, 1:].astype("float64")
