// SPDX-License-Identifier: GPL-2.0
/* A livepatch that replaces hotswap_patch, and patches besides what hotswap_sleeper's thread never leaves. */
#include <linux/init.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

static int patched_cmdline_proc_show(struct seq_file *file, void *unused)
{
	seq_puts(file, "this has been live patched once more\n");
	return 0;
}

static int patched_sleep(void)
{
	return 0;
}

static struct klp_func of_kernel[] = {
	{
		.old_name = "cmdline_proc_show",
		.new_func = patched_cmdline_proc_show,
	},
	{ }
};

static struct klp_func of_sleeper[] = {
	{
		.old_name = "hotswap_sleep",
		.new_func = patched_sleep,
	},
	{ }
};

static struct klp_object objects[] = {
	{
		.funcs = of_kernel,
	},
	{
		.name = "hotswap_sleeper",
		.funcs = of_sleeper,
	},
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
	.replace = true,
};

static int __init patch_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit patch_exit(void)
{
}

module_init(patch_init);
module_exit(patch_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
