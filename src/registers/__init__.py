"""`registers.tokens(model, images)`, `registers.outliers` and `registers.audit`, as a library."""

from registers.audit.library import install

install(__name__)
