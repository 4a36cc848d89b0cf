"""The lab's fixtures, for all tests beside this file."""

from lab.fixtures import lab, lab_image, make_node, node

__all__ = ["lab", "lab_image", "make_node", "node"]
