// What the module says: plain functions, which `npm test` tries without any host.
export const VERSION = '0.1.0';

export function answer(method, path, body) {
  if (method === 'GET' && path === '/{{NAME}}') {
    return { status: 200, value: { status: 'ok', version: VERSION } };
  }
  if (method === 'POST' && path === '/{{NAME}}/echo') {
    return { status: 200, value: { echo: body } };
  }
  return { status: 404, value: { error: `nothing at ${method} ${path}` } };
}
