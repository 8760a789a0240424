"""Sphinx's settings of the site that ``reports/site_of_docs.py`` builds."""

project = "npgemma"
html_title = "npgemma: PaliGemma that you can read"
extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
html_theme = "furo"
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["wide.css"]
# Anchors as in the Markdown of a code host; pictures of README are HTML, to give them a width.
myst_heading_anchors = 3
myst_enable_extensions = ["html_image"]
# A single backquote in a docstring is a name.
default_role = "py:obj"
numpydoc_show_class_members = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
