"""Meta-learning applied to knowledge distillation, on PyTorch Lightning.

A small student learns to adapt to a new task from a few examples, a pool of teachers helps it, and
how they teach is itself learned. The house, in the order in which data flows:

    data       files -> labelled examples -> episodes
    models     networks: body and head
    heads      from a support set's embeddings to a classifier
    losses     what a student is taught, and the coefficients in it: the strategy
    learners   how a student turns a support set into a predictor
    teachers   a checkpoint and a head: it answers for this episode's classes
    recipes    one training procedure each: SingleTask, MetaKD
    callbacks  accuracy, cost, strategy, replica consistency
    report     tables from results
    cli        metakd fit | validate | test | predict | bank | report
"""

__version__ = "0.1.0"
