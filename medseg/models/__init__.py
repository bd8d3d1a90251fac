"""One door to any model: `load_segmenter`."""
