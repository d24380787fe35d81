/** The part of Swagger UI that we use; the package has no types of its own. */
declare module 'swagger-ui-dist/swagger-ui-es-bundle.js' {
  export default function swaggerUi(options: Readonly<Record<string, unknown>>): unknown;
}
