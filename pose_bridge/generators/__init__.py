# SPDX-License-Identifier: Apache-2.0
"""Two views to videos in between: one adapter per file behind the Protocol in base.py."""
