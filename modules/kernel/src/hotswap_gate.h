/* SPDX-License-Identifier: GPL-2.0 */
/* What an implementation behind the gate offers, and how it gets there. */
#ifndef HOTSWAP_GATE_H
#define HOTSWAP_GATE_H

#include <linux/module.h>

struct hotswap_gate_ops {
	struct module *owner;
	/* Answers one call; runs within an RCU read section, so it may not sleep. */
	int (*answer)(char *text, size_t size, u64 number);
};

/* Takes the place of whoever is at the gate; returns when nobody runs the former one any more. To be called at the end of
 * an implementation's init. */
int hotswap_gate_enter(const struct hotswap_gate_ops *ops);

#endif
