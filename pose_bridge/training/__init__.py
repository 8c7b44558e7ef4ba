# SPDX-License-Identifier: Apache-2.0
"""Fitting what the bridge ships with."""
