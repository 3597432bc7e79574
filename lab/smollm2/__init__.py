"""The checkpoint "smollm2", made again: a compressor and an adapter for a generator that people have pretrained."""
