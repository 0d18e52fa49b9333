"""The directive `face`: every name of `icq_bounds`, first in a table, then each with its signature and docstring."""

import inspect

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import icq_bounds


def page() -> list[str]:
    """The page as reStructuredText, one line each."""
    lines = [
        ".. autosummary::",
        "   :nosignatures:",
        "",
        *(f"   ~icq_bounds.{name}" for name in icq_bounds.__all__),
        "",
    ]
    for name in icq_bounds.__all__:
        if inspect.isclass(getattr(icq_bounds, name)):
            lines += [f".. autoclass:: icq_bounds.{name}", "   :members:", ""]
        else:
            lines += [f".. autofunction:: icq_bounds.{name}", ""]
    return lines


class Face(SphinxDirective):
    """Stands where the names shall be."""

    def run(self) -> list[nodes.Node]:
        """Parse the generated page in its place."""
        node = nodes.container()
        self.state.nested_parse(StringList(page(), "face"), self.content_offset, node)
        objects = self.env.domains.python_domain.objects
        for name in [name for name, entry in objects.items() if entry.aliased and entry.docname == self.env.docname]:
            del objects[name]  # where a name really lives is for the pages of the modules to say
        return list(node.children)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("face", Face)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
