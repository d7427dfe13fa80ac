"""The graph passes: what can be cut, how it is masked, how it is removed.

Always imported as ``onnx_shapprune.passes``; the folder stands at the top of the
repository and is mapped there by pyproject.toml.

    shapes      shapes and dtypes of all tensors, without touching the weights
    graph       a read-only index: producers, readers, constants, attributes
    folding     values that are computed from constants only
    rules/      one rule per operator: what becomes of a channel
    couplings   the rules applied in graph order
    partition   the groups of players that follow from what they said
    shifts      what a linear node gains when a channel becomes constant
    masking     an evaluation graph with one mask input per group
    outputs     a model that also returns inner tensors
    suffix      the part of it that the masks can change
    removal     the model minus channels
"""
