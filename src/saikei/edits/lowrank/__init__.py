"""Layers as products of thinner ones: spectra, splits by kind of layer, and what to choose."""
