# SPDX-License-Identifier: Apache-2.0
"""Pure maths of cameras and poses, on NumPy arrays."""
