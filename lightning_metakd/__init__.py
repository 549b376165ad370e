"""Meta-learning applied to knowledge distillation, on PyTorch Lightning.

A small student learns to adapt to a new task from a few examples, a pool of teachers helps it, and
how they teach is itself learned. The house, from the ground up; what is above imports what is below:

    types, arguments  the nouns that travel between folders; checks of numbers
    storage           files that are whole or not there, and are read as data alone
    models            networks: body and head
    functional        pure functions of parameters: binding, descending, roots
    data              files -> labelled examples (sources) -> episodes and batches
    losses            what a student is taught, and the coefficients in it: the strategy
    teachers          a checkpoint and a head: it answers for an episode's classes
    learners          how a student turns a support set into a predictor
    strategy          the hyper-gradient of the coefficients, their quiz, controls and file
    metrics           accuracy with its uncertainty, calibration, cost
    settings          what tells one run from another
    recipes           one training procedure each: SingleTask, MetaKD
    loggers           a run's directory, and Weights & Biases beside it
    callbacks         accuracy, cost, strategy, checkpoints, replica consistency
    reporting         tables from results
    export, classify  students as files that run elsewhere; photographs by them, without torch
    cli               metakd fit | validate | test | predict | precompute | export | classify | report | list
"""

import lazy_loader

__version__ = "0.1.0"

# a name imports its module, and so torch, when it is first used; __init__.pyi says where each lies
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
