// Forms and questions. Nothing is sent before a person said so.

import { h, patch } from "./dom.js";
import { get, post } from "./api.js";
import { duration } from "./views.js";

const dialog = document.getElementById("dialog");
const notices = document.getElementById("notices");
let told = [];
let count = 0;

/** Says something for a while. */
export function notice(text, bad = false) {
  const one = { key: String(count++), text, bad };
  told = [...told, one].slice(-4);
  show();
  setTimeout(() => {
    told = told.filter((other) => other !== one);
    show();
  }, bad ? 12000 : 5000);
}

function show() {
  patch(notices, told.map(({ key, text, bad }) => h("div", { key, class: bad ? "notice bad" : "notice" }, text)));
}

/** An error with all its faults. */
export function fault(error) {
  notice([error.message, ...(error.details ?? [])].join("\n"), true);
}

function open(title, tree, submit) {
  const onsubmit = async (event) => {
    event.preventDefault();
    const form = event.target;
    const values = Object.fromEntries(new FormData(form));
    try {
      await submit(values, event.submitter?.value);
      dialog.close();
    } catch (error) {
      patch(form.querySelector("[data-fault]"), [error.message, ...(error.details ?? [])].map((line) => h("div", {}, line)));
    }
  };
  dialog.replaceChildren();
  patch(dialog, [h("form", { onsubmit }, h("h2", { id: "dialog-title" }, title), tree,
    h("div", { class: "is-bad", "data-fault": true, role: "alert" }),
    )]);
  dialog.showModal();
}

const cancel = () => h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");

/** Asks before a command; `fields` are further questions. */
export function confirm(title, words, button, submit, fields = [], danger = false) {
  open(title, [h("p", {}, words), fields.map((field) => h("label", { key: field.name }, field.label,
    h("input", { name: field.name, type: field.type ?? "text", value: field.value ?? "", required: field.required ?? false, maxlength: field.max ?? 500 }))),
  h("div", { class: "row" }, h("button", { class: danger ? "danger" : "main" }, button), cancel())], submit);
}

/** The deploy form: plans first, if one likes. */
export function deploy(state, module, version, done) {
  const releases = state.modules.flatMap((m) => m.versions.map((r) => `${m.moduleName} ${r.version}`));
  const chosen = module ? `${module} ${version}` : releases[0];
  const select = (name, options, value) => h("select", { name, value },
    options.map((option) => h("option", { key: option, value: option, selected: option === value }, option)));
  if (!releases.length) {
    notice("Nothing was pushed yet: hotswap module push DIR", true);
    return;
  }
  const body = (values) => {
    const [moduleName, wanted] = values.release.split(" ");
    return { moduleName, version: wanted, targetEnvironment: values.to, requesterEmail: values.email,
      description: values.description, allowDowngrade: values.downgrade === "on", requireApproval: values.approval === "on",
      ...(values.seed ? { seed: Number(values.seed) } : {}) };
  };
  open("Deploy", [
    h("label", {}, "Release", select("release", releases, chosen)),
    h("label", {}, "To", select("to", state.clusters.map((c) => c.environment), state.clusters.at(-1)?.environment)),
    h("label", {}, "Your e-mail", h("input", { name: "email", type: "email", required: true, value: localStorage.getItem("hotswap-email") ?? "" })),
    h("label", {}, "Why", h("input", { name: "description", maxlength: 1000 })),
    h("label", { class: "check" }, h("input", { name: "approval", type: "checkbox" }), "Ask for a person's approval first"),
    h("label", { class: "check" }, h("input", { name: "downgrade", type: "checkbox" }), "An older version may replace a newer one"),
    h("input", { name: "seed", type: "hidden", "data-seed": true }),
    h("div", { "data-plan": true, class: "small", role: "status" }),
    h("div", { class: "row" }, h("button", { class: "main", value: "deploy" }, "Deploy"), h("button", { value: "plan" }, "Show the plan"), cancel()),
  ], async (values, which) => {
    localStorage.setItem("hotswap-email", values.email);
    if (which === "plan") {
      const plan = await post("/deployments/plan", body({ ...values, seed: "" }));
      dialog.querySelector("[data-seed]").value = plan.seed;
      patch(dialog.querySelector("[data-plan]"), planned(plan));
      throw new Error("");
    }
    const made = await post("/deployments", body(values));
    notice(`${made.status}: ${values.release} to ${values.to}`);
    done(made.executionId);
  });
}

function planned(plan) {
  const place = (env) => h("li", { key: env.environment }, h("b", {}, env.environment), ": ",
    env.action === "RollOut" ? `${env.strategy}${env.baseVersion ? ` over ${env.baseVersion}` : ""}` : `${env.action === "Skip" ? "skipped" : "would fail"}, ${env.reason}`,
    [...env.waits, ...env.unable.map((n) => `${n.nodeId} ${n.reason}`), ...env.leftOut.map((n) => `${n.nodeId} ${n.reason}`)]
      .map((line) => h("div", { key: line, class: "is-warn" }, line)),
    h("ol", {}, env.steps.map((step) => h("li", { key: String(step.step) },
      `${step.message}, ${step.gate}, at least ${duration(step.atLeast)}`,
      step.judge?.requests ? `; the judge needs about ${step.judge.requests.toLocaleString("en")} ${step.judge.probes ? "probes" : "requests"}${step.judge.takes ? `, ${duration(step.judge.takes)} at today's traffic` : ", and there is no traffic now"}` : "",
      step.joins.length ? `: ${step.joins.slice(0, 6).join(", ")}${step.joins.length > 6 ? ` and ${step.joins.length - 6} more` : ""}` : ""))));
  return [plan.approvalRequired ? h("p", { class: "is-warn" }, "A person must approve it first.") : null, h("ul", {}, plan.environments.map(place))];
}

/** Asks who it is. */
export function login(done) {
  open("Log in", [
    h("label", {}, "Name", h("input", { name: "username", required: true, autocomplete: "username" })),
    h("label", {}, "Password", h("input", { name: "password", type: "password", required: true, autocomplete: "current-password" })),
    h("div", { class: "row" }, h("button", { class: "main" }, "Log in")),
  ], async (values) => done(await post("/authentication/login", values)));
}

/** Whether there are users at all: a server without them answers everybody. */
export const needsLogin = async () => {
  try {
    await get("/clusters");
    return false;
  } catch (error) {
    if (error.status === 401) return true;
    throw error;
  }
};
