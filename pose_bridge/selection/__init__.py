# SPDX-License-Identifier: Apache-2.0
"""Which generated videos, and which of their frames, to believe."""
