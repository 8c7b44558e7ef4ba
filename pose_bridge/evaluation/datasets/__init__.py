# SPDX-License-Identifier: Apache-2.0
"""Data sets in the layouts in which they are published, and the pairs that are asked about."""
