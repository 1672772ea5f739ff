// SPDX-License-Identifier: GPL-2.0
/*
 * A gate: callers read its parameter "call" and never meet a module that is being unloaded.
 * It holds an RCU pointer to the operations of one implementation, and the state that outlives them: the number of calls.
 * The implementation that is at the gate can't be unloaded; another one that enters takes its place.
 */
#include <linux/init.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include "hotswap_gate.h"

static const struct hotswap_gate_ops __rcu *at_gate;
static DEFINE_MUTEX(entering);
static atomic64_t requests = ATOMIC64_INIT(0);
static atomic64_t errors = ATOMIC64_INIT(0);

static void replace(const struct hotswap_gate_ops *ops)
{
	const struct hotswap_gate_ops *former;

	former = rcu_replace_pointer(at_gate, ops, lockdep_is_held(&entering));
	synchronize_rcu();
	if (former)
		module_put(former->owner);
}

int hotswap_gate_enter(const struct hotswap_gate_ops *ops)
{
	/* In its own init a module is not live yet, and try_module_get() takes it all the same. */
	if (!try_module_get(ops->owner))
		return -ENODEV;
	mutex_lock(&entering);
	replace(ops);
	mutex_unlock(&entering);
	return 0;
}
EXPORT_SYMBOL_GPL(hotswap_gate_enter);

/* A call: reading the parameter. Without an implementation it fails. */
static int call(char *text, const struct kernel_param *param)
{
	const struct hotswap_gate_ops *ops;
	int length = -ENODEV;

	rcu_read_lock();
	ops = rcu_dereference(at_gate);
	if (ops)
		length = ops->answer(text, PAGE_SIZE, atomic64_inc_return(&requests));
	rcu_read_unlock();
	if (length < 0)
		atomic64_inc(&errors);
	return length;
}

static int active(char *text, const struct kernel_param *param)
{
	const struct hotswap_gate_ops *ops;
	int length;

	rcu_read_lock();
	ops = rcu_dereference(at_gate);
	length = sysfs_emit(text, "%s\n", ops ? module_name(ops->owner) : "");
	rcu_read_unlock();
	return length;
}

/* Lets the named implementation go without another one: calls fail from then on. */
static int vacate(const char *name, const struct kernel_param *param)
{
	const struct hotswap_gate_ops *ops;
	int result = -ENOENT;

	mutex_lock(&entering);
	ops = rcu_dereference_protected(at_gate, lockdep_is_held(&entering));
	if (ops && sysfs_streq(name, module_name(ops->owner))) {
		replace(NULL);
		result = 0;
	}
	mutex_unlock(&entering);
	return result;
}

static int count(char *text, const struct kernel_param *param)
{
	return sysfs_emit(text, "%lld\n", atomic64_read(param->arg));
}

static const struct kernel_param_ops call_ops = { .get = call };
static const struct kernel_param_ops active_ops = { .get = active };
static const struct kernel_param_ops vacate_ops = { .set = vacate };
static const struct kernel_param_ops count_ops = { .get = count };

module_param_cb(call, &call_ops, NULL, 0444);
module_param_cb(active, &active_ops, NULL, 0444);
module_param_cb(vacate, &vacate_ops, NULL, 0200);
module_param_cb(requests, &count_ops, &requests, 0444);
module_param_cb(errors, &count_ops, &errors, 0444);

static int __init gate_init(void)
{
	return 0;
}

static void __exit gate_exit(void)
{
}

module_init(gate_init);
module_exit(gate_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A gate whose implementation is replaced without a gap");
