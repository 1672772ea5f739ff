// SPDX-License-Identifier: GPL-2.0
/* A plain module; how its init goes is for the build to say (FAULT), so that failures can be tried. */
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/preempt.h>

#ifndef VERSION
#define VERSION "1.0.0"
#endif

static char *version = VERSION;
module_param(version, charp, 0444);

static unsigned int limit = 10;
module_param(limit, uint, 0444);

static int __init plain_init(void)
{
#if defined(FAULT_FAIL)
	return -EINVAL;
#elif defined(FAULT_PANIC)
	panic("hotswap_plain was built to");
#elif defined(FAULT_HANG)
	preempt_disable();
	for (;;)
		mdelay(100);
#endif
	return 0;
}

static void __exit plain_exit(void)
{
}

module_init(plain_init);
module_exit(plain_exit);
MODULE_LICENSE("GPL");
