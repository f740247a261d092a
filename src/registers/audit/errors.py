"""The error of an audit that cannot be made: one line that says what is missing, and why."""

from registers.settings.errors import ConfigError


class AuditError(ConfigError):
    """A model, weights or images that cannot be audited. The message is one line."""
