// SPDX-License-Identifier: GPL-2.0
/* Counts how often its parameter "call" is read. */
#include <linux/atomic.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/sysfs.h>

static atomic64_t requests = ATOMIC64_INIT(0);

static int call(char *text, const struct kernel_param *param)
{
	return sysfs_emit(text, "call %lld\n", atomic64_inc_return(&requests));
}

static int count(char *text, const struct kernel_param *param)
{
	return sysfs_emit(text, "%lld\n", atomic64_read(&requests));
}

static const struct kernel_param_ops call_ops = { .get = call };
static const struct kernel_param_ops count_ops = { .get = count };

module_param_cb(call, &call_ops, NULL, 0444);
module_param_cb(requests, &count_ops, NULL, 0444);

/* Nothing may fail here without being taken back: the node loads the former version again. */
static int __init begin(void)
{
	return 0;
}

static void __exit end(void)
{
}

module_init(begin);
module_exit(end);
MODULE_LICENSE("GPL");
