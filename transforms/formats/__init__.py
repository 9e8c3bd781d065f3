"""Log formats: one kernel a file."""

from __future__ import annotations

#: Format → the class of its kernel, `module:class`.
FORMATS = {
    "combined": "combined:AccessLog",
    "common": "combined:AccessLog",
    "json": "json:Json",
    "lines": "lines:Lines",
    "regex": "regex:Regex",
    "syslog": "syslog:Syslog",
}
