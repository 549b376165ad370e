"""The learned coefficients: their hyper-gradient, their quiz, their controls and their file."""
