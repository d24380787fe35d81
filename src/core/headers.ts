/**
 * On every answer, whoever gives it: nothing in it runs, is framed, or is embedded by a page of another origin, and no address that
 * we were asked at, which may carry a ticket, is told to others. Pages of ours say for themselves what they need. No CORS: pages of
 * other origins read nothing.
 */
export const SAFE_HEADERS: Readonly<Record<string, string>> = {
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cross-Origin-Opener-Policy': 'same-origin',
  // Answers tell of sandboxes and carry tickets; what may be kept says so.
  'Cache-Control': 'no-store',
};
