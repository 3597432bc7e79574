"""The model: a processor, a compressor and a generator (paper, section 3).

Shapes, everywhere in this package:

    B  batch: questions read together
    K  documents a question (ragged; padded to the longest where a tensor has this axis)
    P  pairs: the documents of all B questions in one row, question by question; no padding
    T  tokens of a text, padded on the right to the longest
    L  memory tokens: the embeddings that stand for one document
    D  width of the generator
"""
