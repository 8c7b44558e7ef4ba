# SPDX-License-Identifier: Apache-2.0
"""How good answers are, where the truth is known."""
