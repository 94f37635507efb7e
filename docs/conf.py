"""The documentation site: `sphinx-build -W -b html docs build/docs`."""

project = "swav"
author = "the swav authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["images"]
html_theme = "furo"
html_title = "swav"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
# Pages link to files of the repository too, which the site does not have.
suppress_warnings = ["myst.xref_missing", "myst.header"]
