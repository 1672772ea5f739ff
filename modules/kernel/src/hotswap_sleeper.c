// SPDX-License-Identifier: GPL-2.0
/* A thread that never leaves a function, so that no livepatch of it comes to its end. */
#include <linux/err.h>
#include <linux/init.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/sched.h>

static struct task_struct *sleeper;

int hotswap_sleep(void);

noinline int hotswap_sleep(void)
{
	for (;;) {
		set_current_state(TASK_INTERRUPTIBLE);
		if (kthread_should_stop())
			break;
		schedule();
	}
	__set_current_state(TASK_RUNNING);
	return 0;
}

static int sleep_until_stopped(void *unused)
{
	return hotswap_sleep();
}

static int __init sleeper_init(void)
{
	sleeper = kthread_run(sleep_until_stopped, NULL, "hotswap_sleeper");
	return PTR_ERR_OR_ZERO(sleeper);
}

static void __exit sleeper_exit(void)
{
	kthread_stop(sleeper);
}

module_init(sleeper_init);
module_exit(sleeper_exit);
MODULE_LICENSE("GPL");
