# SPDX-License-Identifier: Apache-2.0
"""VGGT: its network, its checkpoints, and what it says about views."""
