# SPDX-License-Identifier: Apache-2.0
"""Views to cameras: one adapter per file behind the Protocol in base.py."""
