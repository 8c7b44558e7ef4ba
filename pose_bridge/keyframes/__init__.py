# SPDX-License-Identifier: Apache-2.0
"""Which views to keep and which to use."""
