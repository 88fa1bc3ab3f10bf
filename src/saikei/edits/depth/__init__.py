"""Parts of a graph that can be left out whole: finding them, ranking them, counting them."""
