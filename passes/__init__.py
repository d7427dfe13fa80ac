"""The graph passes: what can be cut, how it is masked, how it is removed.

Always imported as ``onnx_shapprune.passes``; the folder stands at the top of the
repository and is mapped there by pyproject.toml.

    weights     values of stored tensors, in memory or left in a file
    validity    what must hold of a file before anything looks at it closely
    bodies      the bodies of If, Loop and Scan
    shapes      shapes and dtypes of all tensors, without touching the weights
    functions   local functions written out, and folded back
    graph       a read-only index: producers, readers, constants, attributes, bodies
    folding     values that are computed from constants only
    stored      constants behind operators that change their form
    rules/      one rule per operator: what becomes of a channel
    couplings   the rules applied in graph order
    partition   the groups of players that follow from what they said
    wishes      what users ask of the groups
    averages    means over the channels that are left
    shifts      what a linear node gains when a channel becomes constant
    masking     an evaluation graph with one mask input per group
    outputs     a model that also returns inner tensors, or is fed them
    inner       a body of an If, Loop or Scan as a model of its own
    suffix      the part of a masked model that the masks can change
    removal     the model minus channels
"""
