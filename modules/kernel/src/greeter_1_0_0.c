// SPDX-License-Identifier: GPL-2.0
/* An implementation behind the gate. */
#include <linux/init.h>
#include <linux/sysfs.h>
#include "hotswap_gate.h"

static int answer(char *text, size_t size, u64 number)
{
	return sysfs_emit(text, "1.0.0 %llu\n", number);
}

static const struct hotswap_gate_ops ops = {
	.owner = THIS_MODULE,
	.answer = answer,
};

static int __init greeter_init(void)
{
	return hotswap_gate_enter(&ops);
}

/* It is not at the gate any more when it is unloaded. */
static void __exit greeter_exit(void)
{
}

module_init(greeter_init);
module_exit(greeter_exit);
MODULE_LICENSE("GPL");
