"""What must hold for the manifests, beyond what a schema can say. Each rule yields what breaks it.

A rule gets every object of one installation (services and pipeline together) and walks all of them, so that nothing
is exempt by not being listed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

from k8s.rendering.fields import Resource
from tests.manifests import object_rules, pod_rules

Rule = Callable[[list[Resource]], Iterator[str]]
RULES: dict[str, Rule] = {
    name: check
    for room in (pod_rules, object_rules)
    for name, check in vars(room).items()
    if inspect.isfunction(check) and check.__module__ == room.__name__
}


def broken_rules(resources: list[Resource]) -> dict[str, list[str]]:
    """Rule -> what breaks it, for the broken ones."""
    found = {name: list(check(resources)) for name, check in RULES.items()}
    return {name: problems for name, problems in found.items() if problems}
