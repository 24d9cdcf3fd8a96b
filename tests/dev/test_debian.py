"""The private apt state uses the machine's own Debian sources, and nothing else of the machine's."""

from __future__ import annotations

from dev.debian import sources_for

DEB822 = """\
# the archive
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/some.gpg

Types: deb
URIs: http://vendor.example
Suites: nodistro
Components: main

Enabled: no
Types: deb
URIs: http://off.example
Suites: bookworm
Components: main
"""

ONE_LINE = """\
deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main non-free # archive
deb-src http://mirror.example/debian bookworm main
# deb http://off.example bookworm main
deb http://mirror.example/security bookworm-security main
deb http://vendor.example bookworm stable
"""


def test_deb822_entries_keep_their_keys_and_gain_sources() -> None:
    """Of a .sources file only Debian's enabled suites stay, with their other fields and with sources."""
    (text,) = sources_for({"debian.sources": DEB822}).values()
    assert text.splitlines() == [
        "types: deb deb-src",
        "uris: http://mirror.example/debian",
        "suites: bookworm bookworm-updates",
        "components: main",
        "signed-by: /usr/share/keyrings/some.gpg",
    ]


def test_one_line_entries_keep_their_options_and_gain_sources() -> None:
    """Of a .list file only Debian's suites stay, with their options and with sources, each once."""
    (text,) = sources_for({"sources.list": ONE_LINE}).values()
    assert text.splitlines() == [
        "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main",
        "deb-src [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm main",
        "deb http://mirror.example/debian bookworm main",
        "deb-src http://mirror.example/debian bookworm main",
        "deb http://mirror.example/security bookworm-security main",
        "deb-src http://mirror.example/security bookworm-security main",
    ]


def test_other_files_contribute_nothing() -> None:
    """A file without an entry of Debian's is left out."""
    assert sources_for({"vendor.list": "deb http://vendor.example nodistro main\n"}) == {}
