"""The parts of `Average`: weights, how they are fitted and certified, and pools of opinions."""
