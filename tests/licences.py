"""The licence of every package that the project needs to run, with all of its extras: `make licences`.

Exit code 1 where one says none, or one that does not go with the project's own.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

ROOT = "unicross"
NOT_SHIPPED = frozenset({"dev"})
"""Extras of the development set-up, which users do not install."""
REFUSED = re.compile(r"(?i)\b(AGPL|(?<!L)GPL|SSPL|BUSL|non-?commercial)")
"""Licences that would bind the project's users."""


def licence_of(package: Distribution) -> str:
    """What a package says of its licence; "?" where it says nothing."""
    about = package.metadata
    if expression := about.get("License-Expression"):
        return expression
    classifiers = [line for line in about.get_all("Classifier", ()) if line.startswith("License ::")]
    names = [line.rpartition(" :: ")[2] for line in classifiers]
    stated = (about.get("License") or "").strip().split("\n")[0]
    return ", ".join(name for name in names if name != "OSI Approved") or stated or "?"


def needed(root: str = ROOT) -> dict[str, Distribution]:
    """All installed packages that the project needs, by name."""
    found: dict[str, Distribution] = {}
    extras = set(distribution(root).metadata.get_all("Provides-Extra", ())) - NOT_SHIPPED
    pending = [(root, frozenset(extras))]
    while pending:
        name, asked = pending.pop()
        try:
            package = distribution(name)
        except PackageNotFoundError:  # for another system, or an extra that is not installed
            continue
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found and not asked:
            continue
        found[key] = package
        for line in package.requires or ():
            requirement = Requirement(line)
            wanted = asked or {""}
            if requirement.marker and not any(
                requirement.marker.evaluate({"extra": extra}) for extra in wanted
            ):
                continue
            if re.sub(r"[-_.]+", "-", requirement.name).lower() not in found:
                pending.append((requirement.name, frozenset(requirement.extras)))
    return dict(sorted(found.items()))


def main() -> None:
    bad = []
    for name, package in needed().items():
        licence = licence_of(package)
        print(f"{name:32} {package.version:16} {licence}")
        if licence == "?" or REFUSED.search(licence):
            bad.append(name)
    if bad:
        print(f"to be looked at: {', '.join(bad)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
