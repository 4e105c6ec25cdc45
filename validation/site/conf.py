"""Sphinx's configuration; its source folder is made by vgf's validation.site.sources."""

from importlib import metadata

project = "vgf"
author = copyright = "the vgf developers"
release = version = metadata.version("vgf").partition("+")[0]
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "validation.site.mathml",
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 4
html_math_renderer = "mathml"
math_numfig = True
numfig = False
math_eqref_format = "({number})"
html_theme = "furo"
html_title = "vgf"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_show_search_summary = False  # it is fetched, which a browser refuses for files
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
templates_path: list[str] = []
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_mock_imports = ["torch", "jax", "jaxlib", "optax", "transformers"]
napoleon_use_ivar = True
napoleon_custom_sections = [("Equation", "example"), ("Source", "example"), ("Shapes", "example")]
suppress_warnings = ["myst.xref_missing", "ref.python", "autodoc.mocked_object"]
pygments_style, pygments_dark_style = "tango", "github-dark"


def laid_out(app, what, name, obj, options, lines):  # type: ignore[no-untyped-def]
    """The sections of a docstring of the specification as they are written, not as markup."""
    heads = ("Equation:", "Shapes:", "Source:", "Raises:", "Args:", "Returns:", "Attributes:")
    inside, found = False, []
    for line in lines:
        if line.strip() in heads and not line.startswith(" "):
            inside = line.strip() in ("Equation:", "Shapes:")
            found += [f"**{line.strip()}** ::", ""] if inside else [line]
        else:
            found.append(line if inside or "``" in line else line.replace("|", "\\|"))
    lines[:] = found


def setup(app):  # type: ignore[no-untyped-def]
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", laid_out, priority=100)  # before napoleon
