"""The parts of `Multimodal`: members by the names of their inputs, and what stands in for them."""
